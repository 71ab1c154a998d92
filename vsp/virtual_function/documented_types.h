// SPDX-License-Identifier: MIT
//
// The types and status values that the documented headers beside this one
// share: for C11 and C++.  They stand beside those of kmcl.h, too, whose HANDLE
// is another: what the documents call HANDLE is PVOID here.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_TYPES_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_TYPES_H_

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

typedef int32_t NTSTATUS;
typedef uint8_t BOOLEAN;
typedef uint8_t BYTE;
typedef int16_t INT16;
typedef uint32_t UINT;
typedef uint32_t UINT32;
typedef uint64_t UINT64;
typedef uint32_t ULONG;
typedef uint64_t ULONGLONG;
typedef void* PVOID;

#define NT_SUCCESS(Status) ((NTSTATUS)(Status) >= 0)
#define STATUS_SUCCESS ((NTSTATUS)0x00000000)
#define STATUS_PENDING ((NTSTATUS)0x00000103)
#define STATUS_UNSUCCESSFUL ((NTSTATUS)0xC0000001)
#define STATUS_NOT_IMPLEMENTED ((NTSTATUS)0xC0000002)
#define STATUS_INVALID_PARAMETER ((NTSTATUS)0xC000000D)
#define STATUS_BUFFER_TOO_SMALL ((NTSTATUS)0xC0000023)
#define STATUS_OBJECT_TYPE_MISMATCH ((NTSTATUS)0xC0000024)
#define STATUS_INSUFFICIENT_RESOURCES ((NTSTATUS)0xC000009A)
#define STATUS_NOT_SUPPORTED ((NTSTATUS)0xC00000BB)
#define STATUS_CANCELLED ((NTSTATUS)0xC0000120)
#define STATUS_INVALID_DEVICE_STATE ((NTSTATUS)0xC0000184)
#define STATUS_DEVICE_REMOVED ((NTSTATUS)0xC00002B6)

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_TYPES_H_
