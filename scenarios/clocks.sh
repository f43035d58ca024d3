# 5/1/1: the clock of the leader, of a worker, or of the clients is an hour ahead, then an hour behind.
#
# Breaks:     the wall clock of one role after the other, by libfaketime; the clocks of ZooKeeper and of the others are
#             right.
# Must hold:  a retry waits for its backoff and no longer; --delay is kept; --job-timeout cancels a job that is late,
#             and no job that is in time; a process whose clock is wrong says so once, with the offset.
# Takes:      about 40 s.

faketime=$("$here/faketime" 2>>"$work/faketime.log") || true
check "there is libfaketime on this machine (else: apt-get install libfaketime)" test -e "$faketime"

# clock OFFSET COMMAND...: with the clock so far off; none is right. Only the wall clock: leases go by the monotonic one.
clock() {
    local offset=$1
    shift
    if [[ -z $offset ]]; then "$@"; else LD_PRELOAD=$faketime FAKETIME=$offset DONT_FAKE_MONOTONIC=1 "$@"; fi
}
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# cell NAME ARGS...: a client that submits one task and waits 15 s for it; its outcome and how long it took, in NAME.cell.
cell() {
    local name=$1 began status=none
    began=$(now_ms)
    shift
    clock "$client_off" timeout 15 "$bin/client" submit --wait -o json "$@" >"$work/$name.out" 2>"$work/$name.log" || true
    ! grep -q '"status"' "$work/$name.out" || status=$(grep -o '"status":"[a-z]*"' "$work/$name.out" | cut -d'"' -f4)
    echo "$status $(($(now_ms) - began))" >"$work/$name.cell"
}
# is CELL STATUS FROM_MS TO_MS: how it ended, and when.
is() {
    local status took
    read -r status took <"$work/$1.cell"
    [[ $status == "$2" ]] && ((took >= $3 && took < $4))
}
shown() {
    local status took
    read -r status took <"$work/$1.cell"
    if [[ $status == none ]]; then echo "not in 15 s"; else printf '%s %d.%d s' "$status" $((took / 1000)) $((took % 1000 / 100)); fi
}
# warned LOG...: in each, once.
warned() {
    local log
    for log; do [[ $(grep -c "the clock of this machine is 1h $way ZooKeeper's" "$log") == 1 ]] || return 1; done
}

row() { printf '    %-11s %-12s %-24s %-14s %-20s %s\n' "$@" >>"$work/table"; }
# The tasks with a limit sleep for 1 s and for 30 s.
row "who is off" plain "retry, backoff 200 ms" "--delay 1s" "--job-timeout 60s" "--job-timeout 2s"
herds=()
for who in leader worker client; do
    for off in +1h -1h; do
        if [[ $off == +1h ]]; then herd=$who-ahead; else herd=$who-behind; fi
        herds+=("$herd")
        leader_off="" worker_off="" client_off=""
        declare "${who}_off=$off"
        clock "$leader_off" master "m$herd"
        until_true "m$herd leads" leads "m$herd"
        clock "$worker_off" worker "w$herd" --allow exec --slots 8
        until_true "w$herd is registered" registered "w$herd"
        noted "$who" "clock $off"
        cells=()
        cell "$herd-plain" & cells+=($!)
        cell "$herd-delay" --delay 1s & cells+=($!)
        cell "$herd-limit" --job-timeout 60s --kind sleep --data 1 & cells+=($!)
        cell "$herd-long" --job-timeout 2s --kind sleep --data 30 & cells+=($!)
        # Each attempt notes when it began.
        cell "$herd-retry" --max-attempts 2 --backoff 200ms..200ms -- \
            sh -c 'date +%s%3N >>"$0"; test "$(wc -l <"$0")" = 2' "$work/$herd.attempts" & cells+=($!)
        wait "${cells[@]}"
        gap=$(paste -sd' ' "$work/$herd.attempts" | awk 'NF == 2 { print $2 - $1 }')
        echo "${gap:-0}" >"$work/$herd.gap"
        row "$who $off" "$(shown "$herd-plain")" "$(shown "$herd-retry")${gap:+ after $gap ms}" "$(shown "$herd-delay")" \
            "$(shown "$herd-limit")" "$(shown "$herd-long")"
        terminate "w$herd"
        terminate "m$herd"
    done
done
cat "$work/table" >>"$work/verdict"
for herd in "${herds[@]}"; do
    if [[ $herd == *-ahead ]]; then way="ahead of"; else way=behind; fi
    case $herd in
    leader*) logs=("$work/m$herd.log") ;;
    worker*) logs=("$work/w$herd.log") ;;
    client*) logs=("$work/$herd"-{plain,delay,limit,long,retry}.log) ;;
    esac
    check "$herd: a task is done at once" is "$herd-plain" "done" 0 5000
    check "$herd: a retry is done" is "$herd-retry" "done" 100 5000
    check "$herd: after its backoff" eval '(($(cat "$work/$herd.gap") >= 100))'
    check "$herd: a delayed task is done, no sooner than that" is "$herd-delay" "done" 1000 6000
    check "$herd: a task in time is done" is "$herd-limit" "done" 1000 6000
    check "$herd: a task out of time is cancelled, no sooner" is "$herd-long" cancelled 2000 8000
    check "$herd: whose clock is wrong says so, once" warned "${logs[@]}"
done
audited 24 6
