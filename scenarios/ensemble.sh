# 2/2/2: three ZooKeeper servers; their leader is killed, then a follower, under load.
#
# Servers:    3
# Breaks:     ZooKeeper's leader, by SIGKILL, started again; then a follower, likewise.
# Must hold:  sessions survive both; work goes on; nothing is lost.
# Takes:      about 20 s.

export HERDSMAN_SESSION_TIMEOUT=10s
herd 2 2 --allow exec
under_way() { until_true "$1's tasks execute" begun_at_least "$1" 10 && outstanding "$1"; }

witnessed red 60 0.3 --rate 12
check "red is under way" under_way red
leading_server
first=$leading
server kill "$first"
new_leader() { local now; now=$(server leader) && [[ $now != "$first" ]]; }
until_true "another server leads" new_leader
check "ZooKeeper's leader $first was killed, and another took its place" new_leader
done_by red 60
server revive "$first"
serves_again() { "$here/zookeeper" status --dir "$work/zookeeper" | grep "server $1:" | grep -c Mode >/dev/null; }
until_true "server $first is back" serves_again "$first"

witnessed blue 60 0.3 --rate 12
check "blue is under way" under_way blue
leading_server
second=$(((first % 3) + 1))
if [[ $second == "$leading" ]]; then second=$(((second % 3) + 1)); fi
server kill "$second"
check "then the follower $second was killed" eval "! serves_again $second"
done_by blue 60
server revive "$second"
until_true "server $second is back" serves_again "$second"

check "m1 still leads" leads m1
audited 120
check "nobody's session ended: no task was begun twice" test "$(grep -c ^begin "$work/witness")" = 120
