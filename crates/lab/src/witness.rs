//! Checks the promise of fencing tokens against what `scenarios/witness` wrote down: a line `begin TASK ATTEMPT TOKEN`
//! for each execution. Of two executions of a task one has the greater token, and the greater token is never the
//! earlier attempt's. Lines need not be in the order of what they tell: an execution may be paused before it writes.

use std::collections::BTreeMap;

/// The executions in what a witness wrote.
pub fn executions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("begin "))
}

/// What breaks the promise: for each pair of executions that do, what is wrong with them and both lines.
pub fn broken_tokens(text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut tasks: BTreeMap<&str, Vec<(&str, u32, &str)>> = BTreeMap::new();
    for line in executions(text) {
        let fields: Vec<&str> = line.split(' ').collect();
        match (&fields[..], fields.get(2).and_then(|attempt| attempt.parse().ok())) {
            ([_, task, _, token], Some(attempt)) if !token.is_empty() => {
                tasks.entry(task).or_default().push((token, attempt, line));
            }
            _ => broken.push(format!("an execution without a token: {line}")),
        }
    }
    for (task, mut begun) in tasks {
        begun.sort_unstable();
        for pair in begun.windows(2) {
            let ((token, attempt, line), (next_token, next_attempt, next_line)) = (pair[0], pair[1]);
            let what = match () {
                () if token == next_token => "two executions share a token",
                () if attempt > next_attempt => "a greater token at an earlier attempt",
                () => continue,
            };
            broken.push(format!("{task}: {what}: {line}; {next_line}"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "\
begin red-1/0 1 00000000000000000007-0000000001
begin blue-2/0 1 00000000000000000007-0000000001
end red-1/0 1
begin red-1/0 3 00000000000000000012-0000000003
begin red-1/0 2 00000000000000000009-0000000002
begin red-1/0 2 00000000000000000010-0000000002
";

    #[test]
    fn tokens_that_grow_with_the_attempts_are_in_order_in_whatever_order_they_were_written() {
        assert_eq!(broken_tokens(KEPT), [""; 0]);
        assert_eq!(executions(KEPT).count(), 5);
    }

    #[test]
    fn a_token_given_out_twice_is_named_with_both_lines() {
        let again = "begin red-1/0 1 00000000000000000007-0000000001";
        let broken = broken_tokens(&format!("{KEPT}{again}\n"));
        assert_eq!(broken, [format!("red-1/0: two executions share a token: {again}; {again}")]);
    }

    #[test]
    fn a_token_greater_than_a_later_attempt_s_is_named() {
        let early = "begin red-1/0 1 00000000000000000011-0000000001";
        let broken = broken_tokens(&format!("{KEPT}{early}\n"));
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("red-1/0: a greater token at an earlier attempt: "), "{broken:?}");
        assert!(broken[0].ends_with(early), "{broken:?}");
    }

    #[test]
    fn an_execution_without_a_token_is_named() {
        for line in ["begin red-1/0 1", "begin red-1/0 1 ", "begin red-1/0 one 7", "begin red-1/0 1 7 8"] {
            assert_eq!(broken_tokens(line), [format!("an execution without a token: {line}")]);
        }
    }
}
