#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What compare_inside.sh measured, as a table and as JSON.

    compare_report.py OUT [JSON]

A line of OUT is "NAME ROUND FERRYBUS-READS depth=D reads=N microseconds=M".
Fails if a side or a round is missing; the ratio is reported, not judged.
"""

import collections
import json
import re
import statistics
import sys

LINE = re.compile(
    r'(ferrybus|virtio) (\d+) FERRYBUS-READS '
    r'depth=(\d+) reads=(\d+) microseconds=(\d+)$')


def read(path):
  """depth -> name -> reads per second, one for each round."""
  rates = collections.defaultdict(lambda: collections.defaultdict(list))
  with open(path) as lines:
    for line in lines:
      match = LINE.match(line.strip())
      if match:
        name, _, depth, reads, microseconds = match.groups()
        rates[int(depth)][name].append(int(reads) * 1e6 / int(microseconds))
  return rates


def summary(rates):
  return {
      'iops': round(statistics.median(rates)),
      'least': round(min(rates)),
      'most': round(max(rates)),
      'rounds': len(rates),
  }


def main():
  results = []
  for depth, sides in sorted(read(sys.argv[1]).items()):
    if len(sides['ferrybus']) != len(sides['virtio']):
      print(f'depth {depth}: {len(sides["ferrybus"])} rounds of ours, '
            f'{len(sides["virtio"])} of QEMU\'s')
      return 1
    ours, theirs = summary(sides['ferrybus']), summary(sides['virtio'])
    # Of neighbours in time: what the machine did besides hits both.
    ratios = [a / b for a, b in zip(sides['ferrybus'], sides['virtio'])]
    results.append({
        'depth': depth,
        'ferrybus': ours,
        'virtio_blk': theirs,
        'ratio': round(statistics.median(ratios), 2),
        'ratio_least': round(min(ratios), 2),
        'ratio_most': round(max(ratios), 2),
    })
  if not results:
    print('nothing was measured')
    return 1
  print('4 KiB random reads per second, median (least to most)')
  for row in results:
    ours, theirs = row['ferrybus'], row['virtio_blk']
    print(f'depth {row["depth"]:3}: '
          f'{ours["iops"]} ({ours["least"]} to {ours["most"]}), '
          f'virtio-blk {theirs["iops"]} '
          f'({theirs["least"]} to {theirs["most"]}); ratio {row["ratio"]} '
          f'({row["ratio_least"]} to {row["ratio_most"]})')
  if len(sys.argv) > 2:
    with open(sys.argv[2], 'w') as out:
      json.dump({'random_reads_4k': results}, out, indent=2)
      out.write('\n')
  return 0


if __name__ == '__main__':
  sys.exit(main())
