# SPDX-License-Identifier: MIT
"""Repairs damaged qcow2 images, and compares with qemu-img's repair.

	repairs.py QNBD SEED COUNT IMAGE...

COUNT times a copy of one of the images is damaged as damage.py does it; one
copy of that is repaired by qnbd check --repair all, one by qemu-img check -r
all.  Then must hold:

* qemu-img check finds nothing in ours, or no more than in its own; where not,
  one of the functions below DIFFERENCES says why.
* qnbd's own check says what the repair said was left.
* A second repair does not change a byte.
* What could be read from the damaged image reads the same.
* --repair leaks lowers refcounts, and leaves no image worse than it was.
"""

import concurrent.futures
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "system"))
import damage  # noqa: E402


def qemu_check(path, *options):
    return damage.run(["qemu-img", "check", "-f", "qcow2", "--output=json",
                       *options, path])


def read(path):
    with open(path, "rb") as file:
        return file.read()


# ---- DIFFERENCES ----

def is_still_corrupt(case):
    """Faults are left that cannot be repaired.  Then qnbd writes to no table
    and frees nothing, nor makes the file longer, so that refcounts may still
    be lost; qemu-img goes on all the same."""
    return case.ours[0] == 2 and case.ours_after[0] in (0, 1, 2, 3)


def is_no_image(case):
    """Neither the check nor the repair can begin; damage.py compares what is
    said to that."""
    return case.ours[0] == 1 and not case.ours[1] and \
        case.ours[2].startswith("qnbd: ")


def is_no_image_for_qemu(case):
    """qemu-img does not open it, before and after."""
    return case.before[0] == 1 and case.ours_after[0] == 1 and \
        not case.ours_after[1]


DIFFERENCES = [is_still_corrupt, is_no_image, is_no_image_for_qemu]


# ---- what must hold ----

class Case:
    """One damaged image and what was said about it."""

    def __init__(self, qnbd, name):
        self.qnbd, self.name = qnbd, name
        self.ours_name, self.theirs_name = "ours-" + name, "theirs-" + name
        shutil.copy(name, self.ours_name)
        shutil.copy(name, self.theirs_name)
        self.before = qemu_check(name)
        self.before_ours = damage.run([qnbd, "check", "--json", name])
        self.ours = self.repair("all")
        self.theirs = qemu_check(self.theirs_name, "-r", "all")
        self.ours_after = qemu_check(self.ours_name)
        self.theirs_after = qemu_check(self.theirs_name)

    def repair(self, extent):
        return damage.run([self.qnbd, "check", "--json", "--repair", extent,
                           self.ours_name])

    def verdict(self):
        """None: qemu-img is content with ours, or with its own no more."""
        after, theirs = self.ours_after, self.theirs_after
        if after[0] == 0:
            return None
        if after[0] == theirs[0] and all(
                after[1].get(key, 0) <= theirs[1].get(key, 0)
                for key in ("corruptions", "leaks", "check-errors")):
            return None
        for difference in DIFFERENCES:
            if difference(self):
                return difference
        return "qemu-img finds more than in its own"

    def says_what_is_left(self):
        again = damage.run([self.qnbd, "check", "--json", self.ours_name])
        left = {key: value for key, value in self.ours[1].items()
                if not key.endswith("-fixed")}
        return again[0] == self.ours[0] and again[1] == left

    def is_idempotent(self):
        before = read(self.ours_name)
        self.repair("all")
        return read(self.ours_name) == before

    def reads_the_same(self):
        done = damage.run_raw(["qemu-img", "compare", "-f", "qcow2", "-F",
                               "qcow2", self.name, self.ours_name])
        if done == 1:
            return False
        # What was in order, as far as it goes, must be after the repair.
        return done == 0 or damage.run_raw([
            "qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", self.name,
            self.name]) != 0

    def leaks_do_no_harm(self):
        shutil.copy(self.name, self.ours_name)
        first = self.repair("leaks")
        after = qemu_check(self.ours_name)
        if first[0] not in (0, 2, 3):
            return read(self.ours_name) == read(self.name)
        before = self.before[1]
        return self.reads_the_same() and (
            after[0] in (0, self.before[0]) or not after[1] or
            after[1].get("corruptions", 0) <= before.get("corruptions", 0))

    def remove(self):
        for name in (self.name, self.ours_name, self.theirs_name):
            os.unlink(name)


def judge(case):
    """None, a difference, or what is wrong."""
    if case.ours[0] not in (0, 1, 2, 3):
        return f"it ended with {case.ours[0]}"
    found = case.verdict()
    if found and not callable(found):
        return found
    if case.ours[1] and not case.says_what_is_left():
        return "the next check says something else"
    if not case.is_idempotent():
        return "a second repair changes it again"
    if not case.reads_the_same():
        return "it reads differently"
    if not case.leaks_do_no_harm():
        return "--repair leaks does harm"
    return found


def try_one(qnbd, images, seed, number):
    rng = random.Random(f"repair {seed} {number}")
    path, image = rng.choice(images)
    done = damage.Damage(image, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if len(done.data) == len(image.data):
            done.once()
    name = f"broken-{number}.qcow2"
    with open(name, "wb") as file:
        file.write(done.data)
    done.data = None
    case = Case(qnbd, name)
    found = judge(case)
    if not found or callable(found):
        case.remove()
    return path, done, case, found


def main():
    qnbd, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    images = [(path, damage.Image(path)) for path in sys.argv[4:]]
    codes, differences, failures = {}, {}, 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda number: try_one(qnbd, images, seed, number),
                           range(count))
        for number, (path, done, case, found) in enumerate(results):
            change = (case.before_ours[0], case.ours[0])
            codes[change] = codes.get(change, 0) + 1
            if callable(found):
                differences[found.__name__] = \
                    differences.get(found.__name__, 0) + 1
            elif found:
                failures += 1
                print(f"{number}: {path}:{done.kind}: {done.text}\n"
                      f"  {found}\n  qnbd {case.ours[0]} {case.ours[1]}\n"
                      f"  qemu-img after ours {case.ours_after}\n"
                      f"  qemu-img after its own {case.theirs_after}\n"
                      f"--- qnbd\n{case.ours[2][:600]}"
                      f"--- qemu-img\n{case.theirs[2][:600]}",
                      file=sys.stderr)
    told = ", ".join(f"{before}->{after} {number}" for (before, after), number
                     in sorted(codes.items()))
    print(f"seed {seed}: {count} repairs, exit codes before->after: {told}; "
          f"differences {differences}")
    sys.exit(f"{failures} repairs are wrong" if failures else 0)


if __name__ == "__main__":
    main()
