# 1/1/1: replies to writes are lost while a client submits thousands of tasks at once.
#
# Breaks:     in rounds, the line of the client, of the worker and of the master in turn is cut, so that the
#             replies to 1 to 6 of the first multis over some size are lost. Everything is drawn from a seed.
# Must hold:  each task is delivered once, the auditor finds every rule kept, and no round takes 5 s longer than the
#             same without cuts: just before it, or, if the machine had become slower meanwhile, just after it.
# Takes:      about 20 s for 4 rounds; ROUNDS=200 plays 200, SEED=N plays the same rounds again, ROUND=N one of them
#             alone.

export HERDSMAN_SESSION_TIMEOUT=6s HERDSMAN_LOG=info,zookeeper_client=off
seed=${SEED:-$((SRANDOM % 1000000))}
first=${ROUND:-1} last=${ROUND:-${ROUNDS:-4}}
longer_ms=5000       # how much longer than without cuts a round may take
stalls_ms=35000      # how much longer, and it is not waited for
rounds_per_server=9  # then a fresh one, so that its log stays short
echo "    seed $seed, rounds $first to $last"

# draw FROM TO: sets drawn.
draw() {
    state=$(((state * 1103515245 + 12345) % 2147483648))
    drawn=$(($1 + (state >> 8) % ($2 - $1 + 1)))
}
# pick WORD...: sets picked to one of them.
pick() {
    draw 1 $#
    picked=${!drawn}
}
ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
s() { printf '%d.%02d s' $(($1 / 1000)) $(($1 % 1000 / 10)); }
# broke WHAT: this round; `fail`, with how to see it again.
broke() {
    printf '%s\n' --log "$dir/1/data" --chroot "$chroot" >"$work/broken" # for whoever audits it again
    client audit --log "$dir/1/data" --chroot "$chroot" 2>&1 | head -n 20 >"$work/verdict.tree" || true
    fail "$1, in round $round: $what. Again: SEED=$seed ROUND=$round scenarios/run replies-lost"
}

# serve: a fresh server, and a line to it for each of the three.
serve() {
    [[ -n ${keep:-} || -z ${dir:-} ]] || "$here/zookeeper" stop --dir "$dir" 2>>"$work/zookeeper.log"
    dir=$work/zookeeper-$round
    HERDSMAN_ZOOKEEPER=$("$here/zookeeper" start --dir "$dir" --port any 2>>"$work/zookeeper.log")
    server=$HERDSMAN_ZOOKEEPER
    for name in client worker master; do line "$name-line-$round"; served[$name]=$name-line-$round; done
}

# at WHO: where it connects to. Who is hurt does so by its line.
at() {
    local where=$server
    [[ $1 != "$hurt" ]] || where=${line_to[${served[$1]}]}
    echo "$where$chroot"
}

# delivered NAME LIMIT_MS: a client submits and receives everything, each task once; sets took_ms.
delivered() {
    local name=$1-$round began
    began=$(ms)
    submit "$name" --kind echo --count "$tasks" --wait -o json --zookeeper "$(at client)"
    until has_ended "$name"; do
        (($(ms) - began <= $2)) || broke "the client had not ended after $(s "$2")"
        sleep 0.02
    done
    took_ms=$(($(ms) - began))
    ended "$name"
    ((exit_code == 0)) || broke "the client ended with $exit_code"
    local out=$work/$name.out
    [[ "$(outcomes "$out" "done") $(distinct "$out") $(wc -l <"$out")" == "$tasks $tasks $tasks" ]] ||
        broke "$(outcomes "$out" "done") outcomes of $(distinct "$out") tasks were delivered"
    rm "$out"
}

# cut_off: what the line says of how many replies it has cut off.
cut_off() {
    local answers=$work/${served[$hurt]}.address before
    before=$(wc -l <"$answers")
    echo replies-cut >&"${line_in[${served[$hurt]}]}"
    until (($(wc -l <"$answers") > before)); do sleep 0.01; done
    tail -n 1 "$answers"
}

play_round() {
    state=$(((seed * 1009 + round) % 2147483648))
    draw 0 0 # a step away from the seed
    local names=(client worker master)
    hurt=${names[(round - 1) % 3]}
    # Small ones more often than large ones.
    draw 3000 20000
    draw 3000 "$drawn"
    tasks=$drawn
    pick 1 2 4 8 16 32 64
    slots=$picked
    if [[ $hurt == client ]]; then pick 0 1000 8192 20000; else pick 0 300 1000; fi
    over=$picked
    draw 1 6
    local wanted=$drawn replies=""
    until (($(tr ' ' '\n' <<<"$replies" | grep -c .) == wanted)); do
        draw 1 12
        [[ " $replies " == *" $drawn "* ]] || replies="$replies $drawn"
    done
    replies=$(tr ' ' '\n' <<<"$replies" | grep . | sort -n | paste -sd ,)
    what="the $hurt's line, $tasks tasks, $slots slots, replies $replies to multis over $over bytes"

    chroot=/round-$round
    HERDSMAN_ZOOKEEPER=$server$chroot
    start m1 master --name m1 --zookeeper "$(at master)"
    start w1 worker --name w1 --slots "$slots" --zookeeper "$(at worker)"
    until_true "m1 leads" leads m1
    until_true "w1 is registered" registered w1
    delivered calm 60000
    local calm_ms=$took_ms
    echo "cut-replies $replies over $over" >&"${line_in[${served[$hurt]}]}"
    local before
    before=$(cut_off) # also: the schedule is in force
    delivered hurt $((calm_ms + stalls_ms))
    local cuts=$(($(cut_off) - before)) hurt_ms=$took_ms
    if ((hurt_ms - calm_ms > longer_ms)); then
        delivered calm 60000
        ((took_ms < calm_ms)) || calm_ms=$took_ms
        ((hurt_ms - calm_ms <= longer_ms)) || broke "the client took $(s "$hurt_ms"), and $(s "$calm_ms") without cuts"
    fi
    kill "${pids[m1]}" "${pids[w1]}"
    ended m1
    ended w1
    client audit --settled --log "$dir/1/data" --chroot "$chroot" >/dev/null || broke "the auditor does not say 'valid'"
    echo "    round $round: $what: $cuts cut off, $(s "$hurt_ms"), and $(s "$calm_ms") without"
    if ((hurt_ms - calm_ms > worst_ms)); then
        worst_ms=$((hurt_ms - calm_ms))
        worst="in round $round, $(s "$hurt_ms") and $(s "$calm_ms")"
    fi
    all_tasks=$((all_tasks + 2 * tasks)) all_cuts=$((all_cuts + cuts))
}

declare -A served=()
server=$HERDSMAN_ZOOKEEPER dir=$work/zookeeper
for name in client worker master; do line "$name-line"; served[$name]=$name-line; done
worst_ms=-999999 worst="" all_tasks=0 all_cuts=0
for ((round = first; round <= last; round++)); do
    ((round == first || (round - first) % rounds_per_server)) || serve
    play_round
done
check "$((last - first + 1)) rounds with $all_cuts replies cut off: each task was delivered once, and every rule was kept" true
check "at most $(s "$((worst_ms > 0 ? worst_ms : 0))") longer than without cuts ($worst)" true
fact tasks "$all_tasks"
