# 2/2/2: the leader lags, as in a long garbage collection.
#
# Breaks:     the leader, by SIGSTOP for three session timeouts with tasks in flight, then SIGCONT.
# Must hold:  the backup takes over; what the old leader still wanted to write is refused; it comes back as a backup.
# Takes:      about 12 s.

export HERDSMAN_SESSION_TIMEOUT=2s
herd 2 2 --allow exec

witnessed red 50 0.3 --rate 8
witnessed blue 50 0.3 --rate 8
until_true "tasks are in flight" begun_at_least red 5
pause m1
until_true "m2 leads" leads m2
check "m2 took over while m1 lagged" test "$(ps -o stat= -p "${pids[m1]}" | cut -c1)" = T
sleep 4 # the rest of three session timeouts
resume m1
until_true "m1 stands by" stands_by m1
check "m1 found its session over and stepped down" grep -q 'master m1 begins anew with a new session' "$work/m1.log"
done_by red 50
done_by blue 50
check "m2 still leads" leads m2
audited 100
check "no running task was begun again" test "$(grep -c ^begin "$work/witness")" = 100
check "leadership changed once" test "$(figure elections)" = 2
