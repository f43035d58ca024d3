//! Which jobs' records a worker keeps at hand: those of the jobs in its list, up to a size.

use std::collections::HashMap;

use tree::JobId;

/// How large the records that are kept may be together, in bytes. What a task needs that waits here is not counted.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was read of jobs, `Read`, for as long as it is of use.
#[derive(Debug)]
pub(super) struct AtHand<Read> {
    reads: HashMap<JobId, Kept<Read>>,
    /// How many entries of the list each job has.
    listed: HashMap<JobId, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<Read> {
    read: Read,
    /// None until it is known.
    bytes: usize,
}

impl<Read> Default for AtHand<Read> {
    fn default() -> Self {
        AtHand { reads: HashMap::new(), listed: HashMap::new(), bytes: 0 }
    }
}

impl<Read: Clone> AtHand<Read> {
    /// What was read of a job, or what `read` begins.
    pub(super) fn get(&mut self, job: &JobId, read: impl FnOnce(&JobId) -> Read) -> Read {
        let kept = self.reads.entry(job.clone()).or_insert_with_key(|job| Kept { read: read(job), bytes: 0 });
        kept.read.clone()
    }

    /// So large is what was read of a job. If that is too much together, only this one is kept.
    pub(super) fn weighs(&mut self, job: &JobId, bytes: usize) {
        let Some(kept) = self.reads.get_mut(job) else { return };
        self.bytes = self.bytes - std::mem::replace(&mut kept.bytes, bytes) + bytes;
        if self.bytes > BYTES_MAX {
            self.reads.retain(|other, _| other == job);
            self.bytes = bytes;
        }
    }

    /// One more entry of the list is of this job.
    pub(super) fn listed(&mut self, job: &JobId) {
        *self.listed.entry(job.clone()).or_default() += 1;
    }

    /// One entry less is. What was read of the job goes with the last.
    pub(super) fn unlisted(&mut self, job: &JobId) {
        let Some(entries) = self.listed.get_mut(job) else { return };
        *entries -= 1;
        if *entries == 0 {
            self.listed.remove(job);
            self.forget(job);
        }
    }

    /// The job may be gone: it is read again when it is asked for.
    pub(super) fn forget(&mut self, job: &JobId) {
        self.bytes -= self.reads.remove(job).map_or(0, |kept| kept.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: usize) -> JobId {
        format!("j-{n}").parse().expect("valid")
    }

    #[test]
    fn what_was_read_of_a_job_is_kept_as_long_as_the_list_has_an_entry_of_it() {
        let mut at_hand = AtHand::default();
        for (entry, expected) in ["read", "not read again", "nor now"].into_iter().zip(["read"; 3]) {
            at_hand.listed(&job(1));
            assert_eq!(at_hand.get(&job(1), |_| entry), expected);
        }
        at_hand.weighs(&job(1), 500_000);
        at_hand.unlisted(&job(1));
        at_hand.unlisted(&job(1));
        assert_eq!((at_hand.get(&job(1), |_| "anew"), at_hand.bytes), ("read", 500_000));
        at_hand.unlisted(&job(1));
        assert!(at_hand.reads.is_empty() && at_hand.listed.is_empty());
        assert_eq!(at_hand.bytes, 0);
    }

    #[test]
    fn however_many_jobs_are_listed_what_is_kept_of_them_stays_within_its_limit() {
        let mut at_hand = AtHand::default();
        for n in 0..300 {
            at_hand.listed(&job(n));
            at_hand.get(&job(n), |_| n);
            at_hand.weighs(&job(n), 500_000);
            at_hand.weighs(&job(n), 500_000); // each task says it
            assert!(at_hand.bytes <= BYTES_MAX && at_hand.bytes == at_hand.reads.len() * 500_000);
        }
        (0..300).for_each(|n| at_hand.unlisted(&job(n)));
        assert!(at_hand.reads.is_empty() && at_hand.listed.is_empty());
    }
}
