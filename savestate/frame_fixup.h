// SPDX-License-Identifier: MIT
//
// Makes the checksums of a tampered frame right again, as a hostile author
// would, so that a test or a fuzzer gets past them.
//
// Trust: the bytes may be anything; what is out of bounds is left alone.
// Cost: reads each byte a few times at most.

#ifndef FERRYBUS_SAVESTATE_FRAME_FIXUP_H_
#define FERRYBUS_SAVESTATE_FRAME_FIXUP_H_

#include <string>

namespace ferrybus::savestate {

// Recomputes, where the fields they cover are within `file`: the body CRCs,
// then the table CRC, then the header CRC.
void FixChecksums(std::string* file);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FRAME_FIXUP_H_
