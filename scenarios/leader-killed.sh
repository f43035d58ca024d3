# 2/2/2: the leader is killed, and only the session timeout tells.
#
# Breaks:     the leader, by SIGKILL with tasks in flight.
# Must hold:  running tasks run on; when the session expires the backup leads and assigns; nothing is lost.
# Takes:      about 12 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 2 2 --allow exec
witnessed red 40 0.3 --rate 8
witnessed blue 40 0.3 --rate 8
until_true "tasks are in flight" begun_at_least red 5
kill_hard m1
until_true "m2 leads" leads m2
done_by red 40
done_by blue 40
audited 80
check "no running task was begun again" test "$(grep -c ^begin "$work/witness")" = 80
check "from the expiry to m2's first assignment: $(cat "$work/fact.takeover_ms") ms (target: 200)" \
    test "$(cat "$work/fact.takeover_ms")" -le 1000
