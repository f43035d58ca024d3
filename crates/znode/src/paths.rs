//! Joining and splitting znode paths, and the number of a sequential znode.

use rand::{Rng, RngExt};

/// `parent/name`; `/name` below the root.
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// The last component of a path.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What `path` is below `root`: `Some("a/b")` for `/root/a/b`, `Some("")` for the root itself, `None` outside it.
pub fn below<'p>(root: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// The number that ZooKeeper appended to a sequential znode: ten digits behind the last `-`. The order of candidates
/// is the order of these numbers, never that of the names.
pub fn sequence(name: &str) -> Option<u32> {
    let digits = name.rsplit('-').next()?;
    if digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Eight random hexadecimal digits: unique among the processes of one herd, so that nobody ever meets its own ghost.
pub fn uid(rng: &mut impl Rng) -> String {
    format!("{:08x}", rng.random::<u32>())
}

/// Says whether `name` can be one component of a path and be typed without quoting: 1 to 64 of `A-Z a-z 0-9 . _ -`,
/// beginning with a letter or a digit.
pub fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_candidate_is_its_last_ten_digits() {
        assert_eq!(sequence("m1-0badcafe-0000000007"), Some(7));
        assert_eq!(sequence("m1-0badcafe-7"), None);
        assert_eq!(sequence("m1-0badcafe-000000000x"), None);
        assert_eq!(sequence(""), None);
    }

    #[test]
    fn a_path_below_a_root_is_not_one_that_only_begins_alike() {
        assert_eq!(below("/tasks", "/tasks/a/b"), Some("a/b"));
        assert_eq!(below("/tasks", "/tasks"), Some(""));
        assert_eq!(below("/tasks", "/tasks2/a"), None);
    }

    #[test]
    fn a_plain_name_needs_no_quoting() {
        assert!(is_plain("job.1_a-B"));
        for bad in ["", "a/b", "a b", ".hidden", "-x", "é", &"x".repeat(65)] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
