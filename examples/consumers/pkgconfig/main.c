/* SPDX-License-Identifier: MIT
 *
 * A channel in C: a server that answers, and a client that asks once, waits
 * for the answer and ends.
 */

#include <stdio.h>
#include <string.h>

#include "ferrybus/kmcl.h"

static const GUID kType = {
    0x6c7a1f6e, 0x2f7d, 0x4a53, {0x9d, 0x38, 0x0c, 0x1f, 0x5a, 0x7d, 0x0e, 2}};

/* Answers each packet with its own bytes. */
static void Echo(VMBCHANNEL channel, VMBPACKETCOMPLETION completion,
                 PVOID buffer, UINT32 length, UINT32 flags) {
  (void)channel;
  (void)flags;
  VmbChannelPacketComplete(completion, buffer, length);
}

/* Asks once packets flow, and waits for the answer. */
static void Ask(VMBCHANNEL channel) {
  char question[8] = "question";
  char answer[8] = "";
  UINT32 length = sizeof(answer);
  const NTSTATUS status = VmbChannelSendSynchronousRequest(
      channel, question, sizeof(question), NULL,
      VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, answer, &length, NULL);
  int* const answered = VmbChannelGetPointer(channel);
  *answered = NT_SUCCESS(status) && length == sizeof(answer) &&
              memcmp(answer, question, sizeof(answer)) == 0;
  printf("answer of %u bytes: %.8s\n", length, answer);
}

#define MUST(Call)                            \
  do {                                        \
    if (!NT_SUCCESS(Call)) {                  \
      fprintf(stderr, "failed: %s\n", #Call); \
      return 1;                               \
    }                                         \
  } while (0)

int main(void) {
  FERRYBUS_PARENT host;
  FERRYBUS_PARENT guest;
  VMBCHANNEL server;
  VMBCHANNEL client;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  int answered = 0;
  int i;

  MUST(ferrybus_create_loopback(1 << 20, &host, &guest));

  MUST(VmbChannelAllocate(host, 1, &server));
  MUST(VmbServerChannelInitSetTargetInterfaceId(server, &kType, &kType));
  MUST(VmbChannelInitSetProcessPacketCallbacks(server, Echo, NULL));
  MUST(VmbChannelEnable(server));
  VmbChannelStart(server);

  MUST(VmbChannelAllocate(guest, 0, &client));
  VmbChannelSetPointer(client, &answered);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = Ask;
  MUST(VmbChannelInitSetStateChangeCallbacks(client, &callbacks));
  MUST(VmbClientChannelInitSetTargetPnp(client, &kType, NULL, NULL));
  MUST(VmbChannelEnable(client));

  for (i = 0; i < 100; ++i) (void)ferrybus_pump(guest);

  VmbChannelDisable(client);
  VmbChannelCleanup(client);
  VmbChannelDisable(server);
  VmbChannelCleanup(server);
  ferrybus_close_parent(guest);
  ferrybus_close_parent(host);
  return answered ? 0 : 1;
}
