//! Which replies are cut off, by count: "to the third and the fifth multi over 8 KB".

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cuts off the reply to the k-th multi over a size, for several k.
///
/// A multi counts when its reply comes, for only then it was applied, or refused, for certain: one whose connection has
/// ended before has no reply that could be cut off. So every k has its cut, where so many multis are answered. Clones
/// count together.
#[derive(Debug, Clone, Default)]
pub struct CutReplies {
    numbers: BTreeSet<usize>,
    over_bytes: usize,
    answered: Arc<AtomicUsize>,
}

impl CutReplies {
    /// To the multis with these numbers, from 1, among those whose requests have more than `over_bytes` bytes.
    pub fn new(numbers: impl IntoIterator<Item = usize>, over_bytes: usize) -> Self {
        CutReplies { numbers: numbers.into_iter().collect(), over_bytes, answered: Arc::default() }
    }

    /// Whether a multi of so many bytes counts.
    pub fn counts(&self, bytes: usize) -> bool {
        let last = self.numbers.last().copied().unwrap_or_default();
        bytes > self.over_bytes && self.answered.load(Ordering::SeqCst) < last
    }

    /// The reply to one that counts has come: whether it is to be cut off.
    pub fn cuts(&self) -> bool {
        self.numbers.contains(&(self.answered.fetch_add(1, Ordering::SeqCst) + 1))
    }
}

impl FromStr for CutReplies {
    type Err = String;

    /// As in `1,4,5 over 8192`; without a size every multi counts.
    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("'{text}' is not like '1,4,5 over 8192'");
        let (numbers, over_bytes) = match text.split_whitespace().collect::<Vec<_>>()[..] {
            [numbers] => (numbers, 0),
            [numbers, "over", bytes] => (numbers, bytes.parse().map_err(|_| error())?),
            _ => return Err(error()),
        };
        let numbers = numbers.split(',').map(|number| number.parse().ok().filter(|number| *number > 0));
        let numbers: Option<BTreeSet<usize>> = numbers.collect();
        Ok(CutReplies::new(numbers.ok_or_else(error)?, over_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_ones_of_those_that_count_are_cut_off() {
        let replies: CutReplies = "1,4,5 over 8192".parse().expect("well formed");
        let requests = [9000, 100, 8193, 8192, 9000, 9000, 20, 9000, 9000];
        let cut: Vec<bool> = requests.iter().map(|bytes| replies.counts(*bytes) && replies.cuts()).collect();
        assert_eq!(cut, [true, false, false, false, false, true, false, true, false]);
        assert!(!replies.counts(1 << 20), "after the last one none counts");
    }

    #[test]
    fn clones_count_together() {
        let replies = CutReplies::new([2], 0);
        let other = replies.clone();
        assert!(!replies.cuts());
        assert!(other.cuts());
    }

    #[test]
    fn one_that_names_nothing_cuts_nothing() {
        assert!(!CutReplies::default().counts(1 << 20));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in ["", "0", "a", "1,", "1 2", "1 over", "1 over x", "1 over 2 3"] {
            assert!(text.parse::<CutReplies>().is_err(), "'{text}'");
        }
        assert!("7".parse::<CutReplies>().expect("well formed").counts(1));
    }
}
