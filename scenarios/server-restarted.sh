# 1/2/1: ZooKeeper itself is killed and started again.
#
# Breaks:     the only ZooKeeper server, by SIGKILL under load; it is started again two seconds later.
# Must hold:  sessions survive (the same znodes, no new election); work goes on; nothing is lost.
# Takes:      about 12 s.

export HERDSMAN_SESSION_TIMEOUT=10s
herd 1 2 --allow exec
members() { client status | sed -nE 's/^(leader|worker)  *([^ ]*).*/\2/p' | sort; }
before=$(members)
witnessed work 60 0.3 --rate 15
until_true "tasks execute" begun_at_least work 10
server kill 1
sleep 2 # the outage
server revive 1
done_by work 60
check "leader and workers are the same as before" test "$(members)" = "$before"
audited 60
check "nobody's session ended: no task was begun twice" test "$(grep -c ^begin "$work/witness")" = 60
