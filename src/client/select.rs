//! Which jobs and tasks a command means.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use coordination::read_all;
use tree::{JobId, TASKS};

use super::{Client, ClientError};

/// What people type: `last` (the job opened last), `all`, `JOB`, `JOB/3`, `JOB/1-5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The job that was opened last.
    Last,
    /// Every job.
    All,
    /// One job, by its id.
    Job(JobId),
    /// Some tasks of a job, by their numbers.
    Tasks(JobId, RangeInclusive<u32>),
}

/// One job, and which of its tasks: all of them where it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The job.
    pub job: JobId,
    /// The numbers of the tasks.
    pub tasks: Option<RangeInclusive<u32>>,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((job, tasks)) = text.split_once('/') else {
            return match text {
                "last" => Ok(Selector::Last),
                "all" => Ok(Selector::All),
                job => job.parse().map(Selector::Job),
            };
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("'{tasks}' is no task: 3, or 1-5"));
        let (first, last) = tasks.split_once('-').unwrap_or((tasks, tasks));
        match (number(first)?, number(last)?) {
            (first, last) if first <= last => Ok(Selector::Tasks(job.parse()?, first..=last)),
            (first, last) => Err(format!("there is no task from {first} to {last}")),
        }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tasks {
            None => self.job.fmt(f),
            Some(tasks) if tasks.start() == tasks.end() => write!(f, "{}/{}", self.job, tasks.start()),
            Some(tasks) => write!(f, "{}/{}-{}", self.job, tasks.start(), tasks.end()),
        }
    }
}

impl Selected {
    /// Whether it names this task of its job.
    pub fn contains(&self, n: u32) -> bool {
        self.tasks.as_ref().is_none_or(|tasks| tasks.contains(&n))
    }
}

impl Client {
    /// The jobs that a selector means, oldest first. Those named are not looked for.
    ///
    /// Errors: there is no job at all, where it says `last`.
    pub async fn select(&self, selector: &Selector) -> Result<Vec<Selected>, ClientError> {
        let whole = |job| Selected { job, tasks: None };
        Ok(match selector {
            Selector::Job(job) => vec![whole(job.clone())],
            Selector::Tasks(job, tasks) => vec![Selected { job: job.clone(), tasks: Some(tasks.clone()) }],
            Selector::All => self.jobs().await?.into_iter().map(whole).collect(),
            Selector::Last => vec![whole(self.jobs().await?.pop().ok_or(ClientError::NoJob)?)],
        })
    }

    /// Every job, oldest first.
    async fn jobs(&self) -> Result<Vec<JobId>, ClientError> {
        let session = self.session();
        session.refresh().await?;
        let names = session.children(TASKS).await?.ok_or(ClientError::NoHerd)?;
        let jobs: Vec<JobId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let paths: Vec<String> = jobs.iter().map(JobId::path).collect();
        let nodes = read_all(session, &paths).await?;
        let mut found: Vec<(i64, JobId)> =
            jobs.into_iter().zip(nodes).filter_map(|(job, node)| Some((node.ok()??.czxid, job))).collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, job)| job).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_jobs_and_ranges_of_tasks() {
        let job: JobId = "j-1".parse().expect("valid");
        assert_eq!("last".parse(), Ok(Selector::Last));
        assert_eq!("all".parse(), Ok(Selector::All));
        assert_eq!("j-1".parse(), Ok(Selector::Job(job.clone())));
        assert_eq!("j-1/3".parse(), Ok(Selector::Tasks(job.clone(), 3..=3)));
        assert_eq!("j-1/0000000003".parse(), Ok(Selector::Tasks(job.clone(), 3..=3)));
        assert_eq!("j-1/1-5".parse(), Ok(Selector::Tasks(job, 1..=5)));
        for bad in ["", "j/", "j/x", "j/5-1", "j/-1", "j/1-", "a b"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad:?}");
        }
    }
}
