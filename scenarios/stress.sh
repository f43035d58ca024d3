# 1/2/2: a ZooKeeper service measured by the herd, with the leader and then a worker killed while it is.
#
# Breaks:     SIGKILL to the leader during the second run, to a worker during the third.
# Must hold:  there are exactly as many operations and clients as were ordered; no znode is left in the service; the
#             second run is valid; the third says that it is invalid, and which worker it lost.
# Takes:      about 20 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 2 2
target=$("$here/zookeeper" start --dir "$work/zookeeper-target" --port any 2>>"$work/target.log")
service() { "$here/zookeeper" cli "$@" --dir "$work/zookeeper-target" 2>/dev/null; }
left_there() { service ls / | tail -n 1; }
# measured FILE OPERATION: how many all clients together made.
measured() { grep -o "\"load\":{[^}]*\"connect\".*\"probe\"" "$1" | grep -o "\"$2\":{\"count\":[0-9]*" | head -n 1 | grep -o '[0-9]*$'; }
has_begun() { grep -c 'all are there' "$work/$1.log"; }
limit_s=60

client stress --target "$target" --clients 11 --znodes 1000 --modify 10 -o json >"$work/exact.out" || fail "a run that nothing disturbs"
check "it is valid" grep '"verdict":"valid"' "$work/exact.out"
check "11 clients measured, no more" test "$(grep -o '"client":[0-9]*' "$work/exact.out" | sort -u | wc -l)" = 11
for due in connect:11 create:11000 read:11000 modify:110 watch:110; do
    check "${due#*:} times ${due%:*}" test "$(measured "$work/exact.out" "${due%:*}")" = "${due#*:}"
done
check "no znode is left there ($(left_there))" test "$(left_there)" = "[zookeeper]"

start steady client stress --target "$target" --case steady --duration 5s --znodes 20 --clients 5 -o json
until_true "it has begun" has_begun steady
kill_hard m1
until_true "it ends" has_ended steady
ended steady
check "with the leader killed it is valid all the same (exit code $exit_code)" test "$exit_code" = 0
until_true "m2 leads" leads m2

start lost client stress --target "$target" --case steady --duration 30s --znodes 20 --clients 5 -o json
until_true "it has begun" has_begun lost
kill_hard w1
until_true "it ends" has_ended lost
ended lost
check "with a worker killed it ends with 1 (exit code $exit_code)" test "$exit_code" = 1
check "and says whom it lost" grep '"reason":"[^"]*load generator[^"]* w1-' "$work/lost.out"
check "and gives no figures" eval '! grep "\"count\"" "$work/lost.out"'
check "no znode is left there ($(left_there))" test "$(left_there)" = "[zookeeper]"
check "nor in the herd" tree_is_clean
audited 13 5
