// SPDX-License-Identifier: MIT
//
// A module for the guest's kernel that breaks the rules of VMBus, from when it
// is loaded until it is unloaded:
//
//  - posts messages from bad addresses, to all connections, of all lengths and
//    types: opens, closes, GPADLs with all counts wrong, answers that only a
//    host gives;
//  - signals events to all connections; calls what no hypervisor has;
//  - writes garbage into the processor's message and event flag pages;
//  - takes over the heartbeat's channel, and writes garbage into both rings'
//    control pages and data, closes it and opens it again.
//
// It does to other channels only what a guest may do: signals them.  A guest
// that closes its own disk has no disk, and that would prove nothing.  Left out
// for the same reason are the messages that end or restart the connection.
//
// It prints what it did when it is unloaded.

#include <asm/mshyperv.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/hyperv.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>

#define POST_MESSAGE 0x5c
#define SIGNAL_EVENT 0x5d
#define VMBUS_SINT_AREA (2 * 256)
#define RING_BYTES (4 * PAGE_SIZE)
// Not those that the kernel itself hands out.
#define FIRST_GPADL 0x70000000

struct post_message {
  u32 connection;
  u32 reserved;
  u32 type;
  u32 bytes;
  u32 payload[62];  // 240 bytes are allowed
};

static struct task_struct *threads[2];
static u8 *page;
static DEFINE_MUTEX(victim_mutex);
static struct vmbus_channel *victim;
static bool victim_open;

static u64 posts, accepted, signals, calls, scribbles, opens;

static u32 below(u32 limit) { return get_random_u32() % limit; }

static u64 wild(void) {
  u64 value = get_random_u64();

  // Small ones and those with a few bits hit more than plain ones.
  switch (below(4)) {
    case 0:
      return value & 0xfff;
    case 1:
      return value & 0xffffffff;
    case 2:
      return 1ull << (value & 63);
    default:
      return value;
  }
}

static u64 hypercall(u64 control, u64 input, u64 output) {
  u64 status;

  asm volatile("mov %4, %%r8\n" CALL_NOSPEC
               : "=a"(status), ASM_CALL_CONSTRAINT, "+c"(control), "+d"(input)
               : "r"(output), THUNK_TARGET(hv_hypercall_pg)
               : "cc", "memory", "r8", "r9", "r10", "r11");
  return status;
}

static u32 no_channel(void) {
  return below(2) ? 1024 + below(1024) : get_random_u32() | 1u << 31;
}

// A channel that is not one of another driver's.
static u32 some_channel(void) {
  u32 relid = 0;

  if (below(2)) return no_channel();
  mutex_lock(&victim_mutex);
  if (victim) relid = victim->offermsg.child_relid;
  mutex_unlock(&victim_mutex);
  return relid;
}

static bool ends_connection(u32 type) {
  return type == CHANNELMSG_REQUESTOFFERS ||
         type == CHANNELMSG_INITIATE_CONTACT || type == CHANNELMSG_UNLOAD;
}

static void fill_message(struct post_message *post) {
  u32 *words = post->payload;
  u32 type = below(8) ? below(30) : get_random_u32();

  get_random_bytes(post, sizeof(*post));
  if (ends_connection(type)) type = CHANNELMSG_GPADL_HEADER;
  words[0] = type;
  words[1] = below(8) ? 0 : get_random_u32();
  // To release the channel would be its end.
  words[2] = type == CHANNELMSG_RELID_RELEASED ? no_channel() : some_channel();
  words[3] = FIRST_GPADL + below(64);
  if (type == CHANNELMSG_GPADL_HEADER && below(4)) {
    // Almost right: bytes of the range, number of ranges, then
    // the range.
    u32 pages = below(40);

    words[4] = (below(4) ? 8 + pages * 8 : below(65536)) |
               (below(4) ? 1 : below(65536)) << 16;
    words[5] = below(4) ? pages * PAGE_SIZE : (u32)wild();
    words[6] = below(4) ? 0 : (u32)wild();
  } else if (type == CHANNELMSG_GPADL_BODY) {
    words[2] = below(8);
  }
  post->connection = below(8) ? (below(2) ? 1 : 4) : (u32)wild();
  post->reserved = 0;
  post->type = below(16) ? 1 : (u32)wild();
  post->bytes = below(8) ? below(241) : (u32)wild();
}

static u64 bad_address(u64 good) {
  switch (below(5)) {
    case 0:
      return good + 1 + below(7);
    case 1:  // goes on in the next page
      return good + PAGE_SIZE - 8 * (1 + below(31));
    case 2:
      return ~0ull - below(4096);
    case 3:  // far beyond RAM
      return get_random_u64() | 1ull << 40;
    default:  // the local APIC's
      return 0xfee00000 + below(4096);
  }
}

static void post(void) {
  u64 good = virt_to_phys(page);
  u64 status;

  fill_message((struct post_message *)page);
  status = hypercall(POST_MESSAGE | (below(32) ? 0 : wild() << 16),
                     below(8) ? good : bad_address(good), wild());
  ++posts;
  if ((u16)status == 0) ++accepted;
}

static void signal(void) {
  u64 id = below(4) ? below(0x20000) : wild();
  u64 flag = below(4) ? 0 : wild() << 32;

  if (below(4))
    hv_do_fast_hypercall8(SIGNAL_EVENT, id | flag);
  else
    hypercall(SIGNAL_EVENT, wild() | 1ull << 40, wild());
  ++signals;
}

// KVM itself has some calls; an interrupt to oneself with any vector is one.
static void call(void) {
  u16 code = below(2) ? below(0x200) : get_random_u32();

  if (code == 0xb || code == 0x15 || code == POST_MESSAGE) code = 0x3ff;
  hypercall(code | (below(2) ? 0 : wild() << 16), wild() | 1ull << 40,
            wild() | 1ull << 40);
  ++calls;
}

// The slots and flags that are not VMBus's.  Of VMBus's only what says nothing
// to the guest: flags of channels that there are not, and a slot without its
// type and length.  A flag of another driver's channel that is written here is
// an interrupt that this guest loses.
static void scribble_synic(void) {
  u64 messages, flags;
  u8 *bytes;

  rdmsrl(HV_X64_MSR_SIMP, messages);
  rdmsrl(HV_X64_MSR_SIEFP, flags);
  if (!(messages & 1) || !(flags & 1)) return;
  bytes = phys_to_virt(messages & PAGE_MASK);
  get_random_bytes(bytes + VMBUS_SINT_AREA + 256, 13 * 256);
  if (READ_ONCE(*(u32 *)(bytes + VMBUS_SINT_AREA)) == 0)
    get_random_bytes(bytes + VMBUS_SINT_AREA + 5, 3);
  bytes = phys_to_virt(flags & PAGE_MASK);
  get_random_bytes(bytes, VMBUS_SINT_AREA);
  get_random_bytes(bytes + VMBUS_SINT_AREA + 128, 14 * 256 - 128);
  wrmsrl(HV_X64_MSR_EOM, 0);
  ++scribbles;
}

static void on_channel(void *context) {}

static void open_victim(void) {
  victim_open = vmbus_open(victim, RING_BYTES, RING_BYTES, NULL, 0, on_channel,
                           NULL) == 0;
  if (victim_open) ++opens;
}

static void scribble_rings(void) {
  struct hv_ring_buffer *ring;

  mutex_lock(&victim_mutex);
  if (victim && below(64) == 0) {
    if (victim_open) vmbus_close(victim);
    open_victim();
  }
  if (victim && victim_open) {
    ring =
        below(2) ? victim->outbound.ring_buffer : victim->inbound.ring_buffer;
    if (below(2)) {
      // Packets of garbage, between indices that are right.
      get_random_bytes(ring->buffer, PAGE_SIZE);
      WRITE_ONCE(ring->write_index, below(512) * 8);
    } else if (below(2)) {
      ((u32 *)ring)[below(5)] = (u32)wild();
    } else {
      get_random_bytes(ring, 256);
    }
    vmbus_setevent(victim);
    ++scribbles;
  }
  mutex_unlock(&victim_mutex);
}

static int storm(void *which) {
  while (!kthread_should_stop()) {
    int i;

    for (i = 0; i < 32; ++i) {
      if (!which)
        post();
      else if (below(2))
        signal();
      else
        call();
    }
    if (which) {
      scribble_rings();
      preempt_disable();
      scribble_synic();
      preempt_enable();
    }
    usleep_range(200, 1000);
  }
  return 0;
}

static int probe(struct hv_device *device,
                 const struct hv_vmbus_device_id *id) {
  mutex_lock(&victim_mutex);
  victim = device->channel;
  open_victim();
  mutex_unlock(&victim_mutex);
  return 0;
}

static int remove(struct hv_device *device) {
  mutex_lock(&victim_mutex);
  if (victim_open) vmbus_close(victim);
  victim_open = false;
  victim = NULL;
  mutex_unlock(&victim_mutex);
  return 0;
}

static const struct hv_vmbus_device_id ids[] = {
    {HV_HEART_BEAT_GUID},
    {},
};

static struct hv_driver driver = {
    .name = "ferrybus_hostile",
    .id_table = ids,
    .probe = probe,
    .remove = remove,
};

static void stop(void) {
  size_t i;

  for (i = 0; i < ARRAY_SIZE(threads); ++i)
    if (!IS_ERR_OR_NULL(threads[i])) kthread_stop(threads[i]);
  vmbus_driver_unregister(&driver);
  free_page((unsigned long)page);
}

static int __init hostile_init(void) {
  size_t i;
  int error;

  if (!hv_hypercall_pg) return -ENODEV;
  page = (u8 *)__get_free_page(GFP_KERNEL);
  if (!page) return -ENOMEM;
  error = vmbus_driver_register(&driver);
  if (error) {
    free_page((unsigned long)page);
    return error;
  }
  for (i = 0; i < ARRAY_SIZE(threads); ++i) {
    threads[i] = kthread_run(storm, (void *)i, "hostile/%zu", i);
    if (IS_ERR(threads[i])) {
      stop();
      return -ENOMEM;
    }
  }
  return 0;
}

static void __exit hostile_exit(void) {
  stop();
  pr_alert(
      "FERRYBUS-HOSTILE posts=%llu accepted=%llu signals=%llu calls=%llu "
      "scribbles=%llu opens=%llu\n",
      posts, accepted, signals, calls, scribbles, opens);
}

module_init(hostile_init);
module_exit(hostile_exit);
MODULE_DESCRIPTION("breaks the rules of VMBus");
MODULE_LICENSE("Dual MIT/GPL");
