//! Reading many znodes: as many in one request as their size allows.
//!
//! A server builds the whole answer of a multi-read in memory, several times over; two answers of 64 MB at a time end one
//! that has 1 GB. How large a znode is only its answer tells. So each begins with few, and asks for more as long as what
//! comes is small: see `Appetite`.

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::op::{Answer, Node};
use super::session::Session;

/// The size of an answer to aim for, in bytes.
const ANSWER_BYTES: usize = 1024 * 1024;
/// What a znode is taken to be before one was read, in bytes: more is in few.
const FIRST_GUESS_BYTES: usize = 512 * 1024;
/// The most znodes in one request. Were they all as large as the first guess, out of a clear sky, 32 MiB would come: what one
/// who reads only small ones pays for the surprise, and what a server survives.
const BITE_MAX: usize = 64;
/// What comes with a znode beside its data, in bytes.
const STAT_BYTES: usize = 128;

type Reply = oneshot::Sender<Result<Option<Node>, Failure>>;

/// Reads znodes in groups, in the order of the calls, gathered as in [`commit`](super::commit).
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

/// How many znodes to ask for at once.
///
/// Their size shows only in the answer. The largest of one answer sets how many the next request asks for; where it is smaller
/// than what came before, the guess only halves, so that a request asks for at most twice as many as one that was full.
///
/// So an answer is larger than 1 MiB only by znodes that are larger than any of the answer before, and never has more than 64
/// of them.
#[derive(Debug)]
pub(super) struct Appetite {
    guess_bytes: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Appetite { guess_bytes: FIRST_GUESS_BYTES }
    }
}

impl Appetite {
    pub(super) fn bite(&self) -> usize {
        (ANSWER_BYTES / self.guess_bytes).clamp(1, BITE_MAX)
    }

    /// Returns how large these answers were, in bytes.
    pub(super) fn learn(&mut self, answers: &[Answer<Node>]) -> usize {
        let bytes = answers.iter().flatten().flatten().map(|node| node.data.len() + STAT_BYTES);
        if let Some(largest) = bytes.clone().max() {
            self.guess_bytes = largest.max(self.guess_bytes.div_ceil(2));
        }
        bytes.sum()
    }

    /// Reads many znodes, a bite at a time, in the order asked for. Each answers for itself.
    ///
    /// Errors: session over.
    pub(super) async fn read(
        &mut self,
        session: &Session,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Answer<Node>>, Failure> {
        self.read_some(session, paths, usize::MAX).await
    }

    /// The same, but nothing more is asked for once `enough_bytes` have come: these are the answers to the first of `paths`.
    pub(super) async fn read_some(
        &mut self,
        session: &Session,
        paths: &[impl AsRef<str>],
        enough_bytes: usize,
    ) -> Result<Vec<Answer<Node>>, Failure> {
        let (mut all, mut rest, mut bytes) = (Vec::with_capacity(paths.len()), paths, 0);
        while !rest.is_empty() && bytes < enough_bytes {
            let (now, later) = rest.split_at(self.bite().min(rest.len()));
            let answers = session.get_many(now).await?;
            bytes += self.learn(&answers);
            all.extend(answers);
            rest = later;
        }
        Ok(all)
    }
}

/// Reads many znodes, as many at a time as their size allows, in the order asked for. Each answers for itself.
///
/// Errors: session over.
pub async fn read_all(session: &Session, paths: &[impl AsRef<str>]) -> Result<Vec<Answer<Node>>, Failure> {
    Appetite::default().read(session, paths).await
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
            Ok(answers) => {
                appetite.learn(&answers);
                let answers = answers.into_iter().map(|answer| answer.map_err(Failure::Refused));
                replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(answer)));
            }
            Err(failure) => replies.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(bytes: usize) -> Answer<Node> {
        let node = Node { data: vec![0; bytes], version: 0, czxid: 1, mzxid: 1, owner: 0, children: 0 };
        Ok(Some(node))
    }

    #[test]
    fn small_znodes_are_soon_read_by_the_dozen_and_large_ones_by_two() {
        let mut appetite = Appetite::default();
        let mut bites = |bytes: usize| -> Vec<usize> {
            let mut bites = Vec::new();
            for _ in 0..7 {
                bites.push(appetite.bite());
                appetite.learn(&vec![answer(bytes); appetite.bite()]);
            }
            bites
        };
        assert_eq!(bites(100), [2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(bites(500_000), [64, 2, 2, 2, 2, 2, 2]);
        assert_eq!(bites(100), [2, 4, 8, 16, 33, 64, 64], "and recovers");
        assert_eq!(bites(900_000), [64, 1, 1, 1, 1, 1, 1], "what only others write");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_answer_is_too_large_only_by_znodes_larger_than_all_before(
            sizes in proptest::collection::vec(prop_oneof![4 => 0..2_000usize, 1 => 0..512 * 1024usize], 1..400),
        ) {
            let (mut appetite, mut rest, mut before) = (Appetite::default(), &sizes[..], FIRST_GUESS_BYTES);
            let mut last_bite = 1;
            while !rest.is_empty() {
                let bite = appetite.bite();
                prop_assert!(bite <= BITE_MAX && bite <= last_bite * 2 + 1, "{bite} after {last_bite}");
                let (now, later) = rest.split_at(bite.min(rest.len()));
                let bytes: usize = now.iter().map(|bytes| bytes + STAT_BYTES).sum();
                let largest = now.iter().max().expect("some") + STAT_BYTES;
                prop_assert!(bytes <= BITE_MAX * (512 * 1024 + STAT_BYTES));
                prop_assert!(bytes <= ANSWER_BYTES || now.len() == 1 || largest > before, "{bytes}");
                appetite.learn(&now.iter().map(|bytes| answer(*bytes)).collect::<Vec<_>>());
                (rest, before, last_bite) = (later, largest, bite);
            }
        }
    }
}
