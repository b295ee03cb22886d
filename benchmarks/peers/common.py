"""What the measuring scripts share: the line they print."""

import json


def report(work, batch, seconds):
    """Prints one JSON object: `work`, images a second (median, lowest, highest), the median time, peak memory."""
    seconds = sorted(seconds)
    middle = seconds[len(seconds) // 2]
    print(json.dumps({
        **work,
        "batch": batch,
        "repeats": len(seconds),
        "img_s": round(batch / middle, 2),
        "low": round(batch / seconds[-1], 2),
        "high": round(batch / seconds[0], 2),
        "ms": round(1e3 * middle, 3),
        "peak_mib": peak_mib(),
        "allocator": allocator(),
    }))


def peak_mib():
    """The largest resident memory of this process so far; None where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def allocator():
    """Whether the allocator was replaced."""
    try:
        with open("/proc/self/maps") as maps:
            return "jemalloc" if any("libjemalloc" in line for line in maps) else "system"
    except OSError:
        return None
