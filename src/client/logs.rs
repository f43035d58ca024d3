//! What tasks print: while they run, and when they have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coordination::{Failure, read_all};
use tokio::time::sleep;
use tree::{Live, TaskId, json_to_bytes, task_number};

use super::{Client, ClientError, Finished, Selected};

/// How often running tasks are looked at; workers show them once a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Something about a task.
#[derive(Debug, Clone, PartialEq)]
pub enum LogLine {
    /// More of a stream: `stdout`, `stderr` or `log`. Before it so many bytes were missed.
    Printed {
        /// The stream.
        stream: String,
        /// What it printed.
        text: String,
        /// How many bytes before it nobody saw.
        missed: u64,
    },
    /// How far it is.
    Progress(f64, String),
    /// It has ended.
    Ended(Box<Finished>),
}

/// What was seen of one task.
#[derive(Default)]
struct Seen {
    attempt: u32,
    streams: BTreeMap<String, u64>,
    progress: Option<(f64, String)>,
}

impl Client {
    /// Hands over what the selected tasks print: what can be seen now, or with `follow` until all have ended.
    ///
    /// Of a running task only the end of each stream can be seen, 8 KiB; of one that has ended what its outcome kept.
    /// Errors: no such job.
    pub async fn logs(
        &self,
        selected: &Selected,
        follow: bool,
        mut each: impl FnMut(&TaskId, LogLine) + Send,
    ) -> Result<(), ClientError> {
        let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        self.record(&selected.job).await?;
        loop {
            let outstanding = match self.tasks(selected).await {
                Err(ClientError::NotFound(_)) if follow => Vec::new(),
                tasks => tasks?,
            };
            for some in outstanding.chunks(500) {
                let paths: Vec<String> = some.iter().map(TaskId::live_path).collect();
                for (task, node) in some.iter().zip(read_all(self.session(), &paths).await?) {
                    if let Ok(Some(node)) = node
                        && let Ok(live) = Live::from_json(&node.data)
                    {
                        show(task, &live, seen.entry(task.n).or_default(), &mut each);
                    }
                }
            }
            let stored = self.session().children(&selected.job.data_path()).await?.unwrap_or_default();
            let waits: BTreeSet<u32> = outstanding.iter().map(|task| task.n).collect();
            let mut numbers: Vec<u32> = stored.iter().filter_map(|name| task_number(name).ok()).collect();
            numbers.sort_unstable();
            numbers.retain(|n| selected.contains(*n) && !waits.contains(n) && !ended.contains(n));
            for n in numbers {
                let task = selected.job.task(n);
                let finished = match self.session().get(&task.data_path()).await {
                    Ok(Some(node)) if node.version > 0 => Finished::with_outcome(&task, &node.data).await,
                    Ok(_) => continue,
                    Err(Failure::Refused(refusal)) => Finished::without_outcome(&task, refusal),
                    Err(failure) => return Err(failure.into()),
                };
                rest(&task, &finished, &seen.remove(&n).unwrap_or_default(), &mut each);
                ended.insert(n);
                each(&task, LogLine::Ended(Box::new(finished)));
            }
            let dead = outstanding.is_empty() || self.dead(selected).await?.len() == outstanding.len();
            if !follow || dead {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn show(task: &TaskId, live: &Live, seen: &mut Seen, each: &mut impl FnMut(&TaskId, LogLine)) {
    if seen.attempt != live.attempt {
        *seen = Seen { attempt: live.attempt, ..Seen::default() };
    }
    for (stream, tail) in &live.streams {
        let before = seen.streams.entry(stream.clone()).or_default();
        let (text, now) = tail.since(*before);
        if !text.is_empty() {
            let missed = tail.from.saturating_sub(*before);
            each(task, LogLine::Printed { stream: stream.clone(), text: text.to_owned(), missed });
        }
        *before = now;
    }
    if let Some(done) = live.progress {
        let progress = (done, live.message.clone());
        if seen.progress.as_ref() != Some(&progress) {
            each(task, LogLine::Progress(done, live.message.clone()));
            seen.progress = Some(progress);
        }
    }
}

/// What the outcome has beyond what was seen while it ran.
fn rest(task: &TaskId, finished: &Finished, seen: &Seen, each: &mut impl FnMut(&TaskId, LogLine)) {
    for stream in ["stdout", "stderr"] {
        let Some(bytes) = finished.result.get(stream).and_then(json_to_bytes) else { continue };
        let before = if seen.attempt == finished.attempts { seen.streams.get(stream).copied().unwrap_or(0) } else { 0 };
        let rest = bytes.get(usize::try_from(before).unwrap_or(usize::MAX)..).unwrap_or_default();
        if !rest.is_empty() {
            let text = String::from_utf8_lossy(rest).into_owned();
            each(task, LogLine::Printed { stream: stream.to_owned(), text, missed: 0 });
        }
    }
}
