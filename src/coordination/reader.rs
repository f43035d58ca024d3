//! Group reading: many znodes in one request, gathered as in [`commit`](super::commit).

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::op::{Answer, MULTI_OPS_MAX, Node};
use super::session::Session;

/// The size of an answer to aim for.
const ANSWER_BYTES: usize = 1024 * 1024;
/// What a znode is taken to be before one was read, in bytes.
const FIRST_GUESS_BYTES: usize = 8 * 1024;

type Reply = oneshot::Sender<Result<Option<Node>, Failure>>;

/// Reads znodes in groups, in the order of the calls.
#[derive(Clone, Debug)]
pub struct Reader {
    queue: mpsc::UnboundedSender<(String, Reply)>,
}

impl Reader {
    /// Reads on `session`.
    pub fn start(session: Session) -> Self {
        let (queue, requests) = mpsc::unbounded_channel();
        tokio::spawn(run(session, requests));
        Reader { queue }
    }

    /// The znode, or `None` where it is absent.
    ///
    /// Errors: refused, for this znode alone; or session over.
    pub fn read(&self, path: String) -> impl Future<Output = Result<Option<Node>, Failure>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let queued = self.queue.send((path, reply));
        async move {
            let closed = || Failure::SessionOver("closed".to_owned());
            queued.map_err(|_| closed())?;
            answer.await.unwrap_or_else(|_| Err(closed()))
        }
    }
}

/// How many znodes to ask for at once. Their size shows only in the answer, so the largest of one answer sets how many
/// the next request asks for.
#[derive(Debug)]
pub(super) struct Appetite {
    largest_bytes: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Appetite { largest_bytes: FIRST_GUESS_BYTES }
    }
}

impl Appetite {
    pub(super) fn bite(&self) -> usize {
        (ANSWER_BYTES / self.largest_bytes).clamp(1, MULTI_OPS_MAX)
    }

    pub(super) fn learn(&mut self, answers: &[Answer<Node>]) {
        if let Some(largest) = answers.iter().flatten().flatten().map(|n| n.data.len() + 128).max() {
            self.largest_bytes = largest;
        }
    }
}

/// Reads many znodes, as many at a time as their size allows, in the order asked for. Each answers for itself.
///
/// Errors: session over.
pub async fn read_all(session: &Session, paths: &[impl AsRef<str>]) -> Result<Vec<Answer<Node>>, Failure> {
    let (mut appetite, mut all, mut rest) = (Appetite::default(), Vec::with_capacity(paths.len()), paths);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(appetite.bite().min(rest.len()));
        let now: Vec<String> = now.iter().map(|path| path.as_ref().to_owned()).collect();
        let nodes = session.get_many(&now).await?;
        appetite.learn(&nodes);
        all.extend(nodes);
        rest = later;
    }
    Ok(all)
}

async fn run(session: Session, mut requests: mpsc::UnboundedReceiver<(String, Reply)>) {
    let mut appetite = Appetite::default();
    while let Some((path, reply)) = requests.recv().await {
        let (mut paths, mut replies) = (vec![path], vec![reply]);
        while paths.len() < appetite.bite()
            && let Ok((path, reply)) = requests.try_recv()
        {
            paths.push(path);
            replies.push(reply);
        }
        match session.get_many(&paths).await {
            Ok(nodes) => {
                appetite.learn(&nodes);
                let answers = nodes.into_iter().map(|node| node.map_err(Failure::Refused));
                replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(answer)));
            }
            Err(failure) => replies.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone())))),
        }
    }
}
