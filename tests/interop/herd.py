"""A client and a worker in Python, written from docs/protocol.md alone, with nothing but kazoo.

    python3 herd.py client HOST:PORT/CHROOT KIND PAYLOAD...   submits, waits, collects; prints one JSON line a task
    python3 herd.py worker HOST:PORT/CHROOT SLOTS             runs tasks of kind "upper" until standard input ends
"""

import json
import random
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NoNodeError, NodeExistsError, RolledBackError

LIMIT_S = 30


def uid():
    return "%08x" % random.SystemRandom().getrandbits(32)


def connect(address):
    zk = KazooClient(hosts=address, timeout=4)
    zk.start(timeout=LIMIT_S)
    return zk


def commit(transaction):
    """Sends a multi; the first error that is not just a consequence of another, or None."""
    for result in transaction.commit():
        if isinstance(result, Exception) and not isinstance(result, RolledBackError):
            return result
    return None


def client(address, kind, payloads):
    zk = connect(address)
    job = "python-" + uid()
    tasks, data = "/tasks/" + job, "/data/" + job
    record = {"kind": kind, "policy": {"max_attempts": 1}, "sealed": False, "language": "python"}

    # open
    opening = zk.transaction()
    opening.create(tasks, json.dumps(record).encode())
    opening.create(data, b"")
    assert commit(opening) is None

    # submit, all in one multi
    submitting = zk.transaction()
    submitting.check(tasks, 0)
    names = ["%010d" % n for n in range(len(payloads))]
    for name, payload in zip(names, payloads):
        submitting.create(data + "/" + name, payload.encode())
        submitting.create(tasks + "/" + name, b"")
    assert commit(submitting) is None

    # seal
    zk.set(tasks, json.dumps(dict(record, sealed=True)).encode(), version=0)

    # watch until no task is left
    left = threading.Event()

    @zk.ChildrenWatch(tasks)
    def changed(children):
        if not children:
            left.set()
            return False

    assert left.wait(LIMIT_S), "the tasks were not completed in time"

    # deliver and collect, then close
    for name in names:
        outcome, stat = zk.get(data + "/" + name)
        assert stat.version == 1, stat
        print(json.dumps(dict(json.loads(outcome), task=job + "/" + name)))
        zk.delete(data + "/" + name, version=1)
    closing = zk.transaction()
    closing.delete(data)
    closing.delete(tasks)
    assert commit(closing) is None
    zk.stop()


class Worker:
    def __init__(self, zk, slots):
        self.zk = zk
        self.name = "python-" + uid()
        self.path = "/workers/" + self.name
        self.seen = set()
        self.free = threading.Semaphore(slots)
        for root in ("/master", "/workers", "/tasks", "/data"):
            try:
                zk.create(root)
            except NodeExistsError:
                pass
        record = {"slots": slots, "kinds": ["upper"], "tags": ["python"], "assigned": []}
        zk.create(self.path, json.dumps(record).encode(), ephemeral=True)
        zk.DataWatch(self.path, self.changed)

    def changed(self, data, stat):
        if data is None:
            return False
        assigned = json.loads(data)["assigned"]
        for entry in assigned:
            if entry not in self.seen:
                self.seen.add(entry)
                threading.Thread(target=self.run, args=(entry,), daemon=True).start()
        self.seen &= set(assigned)

    def run(self, entry):
        task, _, version = entry.partition("@")
        job = task.split("/")[0]
        try:
            kind = json.loads(self.zk.get("/tasks/" + job)[0])["kind"]
            payload, stat = self.zk.get("/data/" + task)
            state = json.loads(self.zk.get("/tasks/" + task)[0] or b"{}") if version else {}
        except NoNodeError:
            return
        if stat.version != 0:
            return
        with self.free:
            outcome = {"status": "done", "worker": self.name, "attempts": state.get("attempt", 0) + 1}
            if kind == "upper":
                outcome["result"] = payload.decode().upper()
            else:
                outcome.update(status="failed", error="this worker does not run " + kind)
        # complete, and mark the job if the task failed
        while True:
            record, stat = self.zk.get("/tasks/" + job)
            record = json.loads(record)
            mark = outcome["status"] == "failed" and not record.get("failed")
            completing = self.zk.transaction()
            completing.check(self.path, -1)
            completing.delete("/tasks/" + task, version=int(version or 0))
            completing.set_data("/data/" + task, json.dumps(outcome).encode(), version=0)
            if mark:
                completing.set_data("/tasks/" + job, json.dumps(dict(record, failed=True)).encode(), version=stat.version)
            refused = commit(completing)
            assert refused is None or isinstance(refused, (NoNodeError, BadVersionError)), refused
            again = mark and isinstance(refused, BadVersionError) and self.zk.exists("/tasks/" + task)
            if not again:  # somebody else set the record
                return


def worker(address, slots):
    zk = connect(address)
    print(Worker(zk, slots).name, flush=True)
    sys.stdin.read()
    zk.stop()


if __name__ == "__main__":
    role, address, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    if role == "client":
        client(address, rest[0], rest[1:])
    else:
        worker(address, int(rest[0]))
