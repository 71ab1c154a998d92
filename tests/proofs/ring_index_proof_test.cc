// SPDX-License-Identifier: MIT
//
// The ring's index arithmetic, proved for all values: every data size that is
// legal, every index that passed the check, every length.  That no sum,
// difference or product wraps round is part of each proof.
//
// What is proved is ring_index.h itself.  Its functions say uint32_t and
// uint64_t without a namespace, so here, where ferrybus::ringbuffer has types
// of these names, they are functions on symbolic integers.  This file alone may
// include it so: nothing else in this program may use ring_index.h.

#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>

#include "ferrybus/ringbuffer/wire.h"
#include "ferrybus/tests/proofs/symbolic.h"

namespace ferrybus::ringbuffer {
using uint32_t = proofs::Symbolic<32>;
using uint64_t = proofs::Symbolic<64>;
}  // namespace ferrybus::ringbuffer

// After the names above, on purpose.
#include "ferrybus/ringbuffer/ring_index.h"

namespace ferrybus::ringbuffer {
namespace {

using proofs::Proof;
using proofs::Prove;
using proofs::Verdict;

void ExpectProved(const std::function<void(Proof&)>& body) {
  const Verdict verdict = Prove(body);
  EXPECT_TRUE(verdict.proved) << verdict.counterexample;
  std::cout << verdict.checks << " checks on " << verdict.paths << " paths\n";
}

// A proof that must fail, since its claim is false.
void ExpectRefuted(const char* what, const std::function<void(Proof&)>& body) {
  const Verdict verdict = Prove(body);
  EXPECT_FALSE(verdict.proved) << what;
  std::cout << what << ": " << verdict.counterexample << "\n";
}

struct Ring {
  uint32_t write;
  uint32_t read;
  uint32_t size;
  bool legal;
};

// A ring whose size and indices passed the checks; not legal: they did not.
Ring AnyRing(Proof& proof) {
  const uint32_t write = proof.Any32("write");
  const uint32_t read = proof.Any32("read");
  const uint32_t size = proof.Any32("size");
  const bool legal = IsValidDataSize(size) && IsValidIndex(write, size) &&
                     IsValidIndex(read, size);
  return {write, read, size, legal};
}

TEST(RingIndexProofTest, UsedAndFreeBytesMakeTheRing) {
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    if (!ring.legal) return;
    const uint32_t used = UsedBytes(ring.write, ring.read, ring.size);
    const uint32_t free = FreeBytes(ring.write, ring.read, ring.size);
    proof.Check(used < ring.size, "never all used");
    proof.Check(used % 8 == 0, "whole units");
    proof.Check(used + free == ring.size, "used and free are all");
    proof.Check(free >= 8, "CountRoom takes 8 away");
    if (ring.write == ring.read) {
      proof.Check(used == 0, "equal indices: empty");
    } else {
      proof.Check(used >= 8, "empty only with equal indices");
    }
  });
}

TEST(RingIndexProofTest, AdvanceStaysInTheRingAndIsUndoneByUsedBytes) {
  ExpectProved([](Proof& proof) {
    const uint32_t index = proof.Any32("index");
    const uint32_t bytes = proof.Any32("bytes");
    const uint32_t size = proof.Any32("size");
    if (!IsValidDataSize(size) || !IsValidIndex(index, size)) return;
    if (bytes > size || !(bytes % 8 == 0)) return;
    const uint32_t next = Advance(index, bytes, size);
    proof.Check(next < size, "below the size");
    proof.Check(next % 8 == 0, "a multiple of 8");
    if (bytes < size) {
      proof.Check(UsedBytes(next, index, size) == bytes, "so many bytes on");
    }
  });
}

// The memory is mapped twice in a row: no packet reaches behind it.
TEST(RingIndexProofTest, PacketEndsWithinTheSecondMapping) {
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    if (!ring.legal) return;
    const uint32_t total = proof.Any32("total");
    if (total > UsedBytes(ring.write, ring.read, ring.size)) return;
    proof.Check(uint64_t(ring.read) + uint64_t(total) <
                    uint64_t(ring.size) * uint64_t(2),
                "read within two sizes");
  });
}

// BasicRingProducer::CountRoom: what it calls room can be written.
TEST(RingIndexProofTest, WhatFitsDoesNotMakeAFullRingLookEmpty) {
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    if (!ring.legal) return;
    const uint32_t total = proof.Any32("total");
    if (!(total % 8 == 0) ||
        total > FreeBytes(ring.write, ring.read, ring.size) - 8) {
      return;
    }
    const uint32_t used = UsedBytes(ring.write, ring.read, ring.size);
    const uint32_t write = Advance(ring.write, total, ring.size);
    proof.Check(UsedBytes(write, ring.read, ring.size) == used + total,
                "so much more is used");
    // What was free before, and is not this packet, is free still.
    proof.Check(FreeBytes(write, ring.read, ring.size) + total ==
                    FreeBytes(ring.write, ring.read, ring.size),
                "so much less is free");
  });
}

TEST(RingIndexProofTest, PacketLengths) {
  ExpectProved([](Proof& proof) {
    // A caller's lengths: spans of less than 2^60 bytes.
    const uint64_t header = proof.Any64("header");
    const uint64_t payload = proof.Any64("payload");
    const auto longest = uint64_t(int64_t{1} << 60);
    if (header > longest || payload > longest) return;
    const uint64_t total = PacketRingBytes(header, payload);
    proof.Check(total % 8 == 0, "whole units");
    proof.Check(total >= header + payload + kTrailerBytes, "has room for all");
    proof.Check(total < header + payload + kTrailerBytes + 8,
                "less than a unit of padding");
  });
}

TEST(RingIndexProofTest, LongestPacket) {
  ExpectProved([](Proof& proof) {
    const uint32_t size = proof.Any32("size");
    if (!IsValidDataSize(size)) return;
    const uint64_t longest = MaxPacketRingBytes(size);
    proof.Check(longest + 16 <= uint64_t(size), "two units stay free");
    proof.Check(longest >= kMinPacketBytes, "some packet fits");
    proof.Check(longest % 8 == 0, "whole units");
    // length8 of a descriptor has 16 bits.
    proof.Check(longest - kTrailerBytes <= uint64_t(0xffff * 8),
                "its length fits the descriptor");
    proof.Check(longest <= uint64_t(UINT32_MAX), "Write's cast keeps it");
  });
}

// BasicRingProducer::RefreshReadIndex and BasicRingConsumer::RefreshWriteIndex:
// an index that is accepted moves forward, and not past the other one.
TEST(RingIndexProofTest, AcceptedIndexMovesForward) {
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    const uint32_t now = proof.Any32("now");
    if (!ring.legal || !IsValidIndex(now, ring.size)) return;
    // The producer's: `now` is a read index.
    const uint32_t published = UsedBytes(ring.write, ring.read, ring.size);
    const uint32_t moved = UsedBytes(now, ring.read, ring.size);
    if (moved <= published) {
      proof.Check(UsedBytes(ring.write, now, ring.size) + moved == published,
                  "what was read is not used any more");
    }
  });
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    const uint32_t now = proof.Any32("now");
    if (!ring.legal || !IsValidIndex(now, ring.size)) return;
    // The consumer's: `now` is a write index.
    const uint32_t before = UsedBytes(ring.write, ring.read, ring.size);
    const uint32_t after = UsedBytes(now, ring.read, ring.size);
    if (after >= before) {
      proof.Check(FreeBytes(now, ring.read, ring.size) <=
                      FreeBytes(ring.write, ring.read, ring.size),
                  "a peer that writes leaves less free");
    }
  });
}

// BasicRingConsumer::Release: of the releases that make more room than the
// peer waits for, exactly one crosses its mark.
TEST(RingIndexProofTest, OneReleaseCrossesTheMark) {
  ExpectProved([](Proof& proof) {
    const Ring ring = AnyRing(proof);
    const uint32_t first = proof.Any32("first");
    const uint32_t pending = proof.Any32("pending");
    if (!ring.legal || !IsValidIndex(first, ring.size)) return;
    const uint32_t used = UsedBytes(ring.write, ring.read, ring.size);
    const uint32_t taken = UsedBytes(first, ring.read, ring.size);
    if (taken > used) return;
    const auto free = [&](uint32_t read) {
      return FreeBytes(ring.write, read, ring.size);
    };
    // Two releases: read to `first`, then all.
    const bool at_first = free(ring.read) <= pending && free(first) > pending;
    const bool at_second = free(first) <= pending && free(ring.write) > pending;
    proof.Check(proofs::Condition({!(at_first && at_second)}), "not twice");
    if (free(ring.read) <= pending && pending < ring.size) {
      proof.Check(proofs::Condition({at_first || at_second}), "once");
    }
  });
}

// Weakened claims, and what z3 says against them.
TEST(RingIndexProofTest, WeakenedChecksAreRefuted) {
  ExpectRefuted("no cap of the size", [](Proof& proof) {
    const uint32_t index = proof.Any32("index");
    const uint32_t size = proof.Any32("size");
    if (!(size % kPageBytes == 0) || !IsValidIndex(index, size)) return;
    (void)Advance(index, size, size);
  });
  ExpectRefuted("an index equal to the size", [](Proof& proof) {
    const uint32_t write = proof.Any32("write");
    const uint32_t size = proof.Any32("size");
    if (!IsValidDataSize(size) || write > size || !(write % 8 == 0)) return;
    proof.Check(UsedBytes(write, 0, size) < size, "never all used");
  });
  ExpectRefuted("an index that is not a multiple of 8", [](Proof& proof) {
    const uint32_t write = proof.Any32("write");
    const uint32_t size = proof.Any32("size");
    if (!IsValidDataSize(size) || write >= size) return;
    (void)(FreeBytes(write, 0, size) - 8);
  });
  ExpectRefuted("a packet that takes all that is free", [](Proof& proof) {
    const Ring ring = AnyRing(proof);
    const uint32_t total = proof.Any32("total");
    if (!ring.legal || !(total % 8 == 0)) return;
    if (total > FreeBytes(ring.write, ring.read, ring.size)) return;
    const uint32_t write = Advance(ring.write, total, ring.size);
    proof.Check(UsedBytes(write, ring.read, ring.size) ==
                    UsedBytes(ring.write, ring.read, ring.size) + total,
                "so much more is used");
  });
  ExpectRefuted("a read index that is not compared", [](Proof& proof) {
    const Ring ring = AnyRing(proof);
    const uint32_t now = proof.Any32("now");
    if (!ring.legal || !IsValidIndex(now, ring.size)) return;
    proof.Check(UsedBytes(ring.write, now, ring.size) <=
                    UsedBytes(ring.write, ring.read, ring.size),
                "never more used than was written");
  });
}

}  // namespace
}  // namespace ferrybus::ringbuffer
