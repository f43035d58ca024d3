//! Reading many znodes: as many in one request as their size allows.
//!
//! A server builds the whole answer of a multi-read in memory, several times over; two answers of 64 MB at a time end one
//! that has 1 GB. How large a znode is only its answer tells. So each begins with few, and asks for more as long as what
//! comes is small; and before it asks for very many, a random sample of them tells: see `Appetite`.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::{mpsc, oneshot};
use znode::{Answer, Failure, MULTI_OPS_MAX, Node};

use super::session::Session;

/// The size of an answer to aim for, in bytes.
const ANSWER_BYTES: usize = 1024 * 1024;
/// What a znode is taken to be before one was read, in bytes: more is in few.
const FIRST_GUESS_BYTES: usize = 512 * 1024;
/// The most znodes in one request where none of their group was looked at yet. Were they all as large as the first guess, out
/// of a clear sky, 8 MiB would come. A server with 1 GB survives two of 32 MiB at a time, most times.
const SAMPLE: usize = 24;
/// For so many more a small znode vouches, drawn at random.
const VOUCHES_FOR: usize = 20;
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

/// What is still to be read.
#[derive(Debug)]
struct Unread<T> {
    /// Of a group of which a sample was read.
    known: Vec<T>,
    /// Nothing is known of these.
    unknown: VecDeque<T>,
}

impl<T> Unread<T> {
    fn new(all: impl IntoIterator<Item = T>) -> Self {
        Unread { known: Vec::new(), unknown: all.into_iter().collect() }
    }

    fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }
}

/// How many znodes to ask for at once, and which.
///
/// Their size shows only in the answer. The largest of one answer sets how many the next request asks for; where it is smaller
/// than what came before, the guess only halves, so that a request asks for at most twice as many as one that was full.
///
/// So that many small ones are no reason to run into as many large ones, 24 at random of a group of 500 are asked for first,
/// the others, as long as none of them is large. An answer is larger than 1 MiB only by znodes that are larger
/// than all that were drawn before: if a quarter of a group is, 24 miss that once in 1,000 times. The sample of a group is read
/// together with the others of the group before, so that as many requests are made as without.
#[derive(Debug)]
pub(super) struct Appetite {
    guess_bytes: usize,
    draw: StdRng,
}

impl Default for Appetite {
    fn default() -> Self {
        Appetite::drawing_by(StdRng::from_rng(&mut rand::rng()))
    }
}

impl Appetite {
    fn drawing_by(draw: StdRng) -> Self {
        Appetite { guess_bytes: FIRST_GUESS_BYTES, draw }
    }

    /// Takes out what to ask for next.
    fn bite<T>(&mut self, unread: &mut Unread<T>) -> Vec<T> {
        let Unread { known, unknown } = unread;
        let fit = (ANSWER_BYTES / self.guess_bytes).clamp(1, MULTI_OPS_MAX);
        let mut bite: Vec<T> = known.drain(..fit.min(known.len())).collect();
        let room = fit - bite.len();
        if fit < SAMPLE {
            bite.extend(unknown.drain(..room.min(unknown.len())));
        } else if known.is_empty() {
            let drawn = SAMPLE.min(room).min(unknown.len());
            *known = unknown.drain(..(drawn + drawn * VOUCHES_FOR).min(unknown.len())).collect();
            let (sample, _) = known.partial_shuffle(&mut self.draw, drawn);
            let drawn = sample.len();
            bite.extend(known.drain(known.len() - drawn..));
        }
        bite
    }

    /// Returns how large these answers were, in bytes.
    fn learn(&mut self, answers: &[Answer<Node>]) -> usize {
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

    /// The same, but nothing more is asked for once `enough_bytes` have come: these are the answers to the first of `paths`,
    /// which may be none where one of the others was large.
    pub(super) async fn read_some(
        &mut self,
        session: &Session,
        paths: &[impl AsRef<str>],
        enough_bytes: usize,
    ) -> Result<Vec<Answer<Node>>, Failure> {
        let mut read: Vec<Option<Answer<Node>>> = vec![None; paths.len()];
        let (mut unread, mut bytes) = (Unread::new(0..paths.len()), 0);
        while !unread.is_empty() && bytes < enough_bytes {
            let bite = self.bite(&mut unread);
            let asked: Vec<&str> = bite.iter().map(|at| paths[*at].as_ref()).collect();
            let answers = session.get_many(&asked).await?;
            bytes += self.learn(&answers);
            bite.into_iter().zip(answers).for_each(|(at, answer)| read[at] = Some(answer));
        }
        Ok(read.into_iter().map_while(|answer| answer).collect())
    }
}

/// Reads many znodes, as many at a time as their size allows, in the order asked for. Each answers for itself.
///
/// Errors: session over.
pub async fn read_all(session: &Session, paths: &[impl AsRef<str>]) -> Result<Vec<Answer<Node>>, Failure> {
    Appetite::default().read(session, paths).await
}

async fn run(session: Session, mut requests: mpsc::UnboundedReceiver<(String, Reply)>) {
    let (mut appetite, mut unread) = (Appetite::default(), Unread::new([]));
    loop {
        if unread.is_empty() {
            let Some(request) = requests.recv().await else { return };
            unread.unknown.push_back(request);
        }
        while let Ok(request) = requests.try_recv() {
            unread.unknown.push_back(request);
        }
        let (paths, replies): (Vec<String>, Vec<Reply>) = appetite.bite(&mut unread).into_iter().unzip();
        let answers: Vec<Result<Option<Node>, Failure>> = match session.get_many(&paths).await {
            Ok(answers) => {
                appetite.learn(&answers);
                answers.into_iter().map(|answer| answer.map_err(Failure::Refused)).collect()
            }
            Err(failure) => vec![Err(failure); paths.len()],
        };
        replies.into_iter().zip(answers).for_each(|(reply, answer)| drop(reply.send(answer)));
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

    /// Reads znodes of these sizes, and returns how many each request asked for, and how large its answer was.
    fn requests(appetite: &mut Appetite, sizes: &[usize]) -> Vec<(usize, usize)> {
        let (mut requests, mut unread) = (Vec::new(), Unread::new(sizes.iter().copied()));
        while !unread.is_empty() {
            let bite = appetite.bite(&mut unread);
            let bytes = appetite.learn(&bite.iter().map(|bytes| answer(*bytes)).collect::<Vec<_>>());
            requests.push((bite.len(), bytes));
        }
        requests
    }

    fn seeded(seed: u64) -> Appetite {
        Appetite::drawing_by(StdRng::seed_from_u64(seed))
    }

    #[test]
    fn small_znodes_are_soon_read_by_the_hundred_and_large_ones_by_two() {
        let mut appetite = seeded(1);
        let mut asked = |bytes: usize, znodes: usize| -> Vec<usize> {
            requests(&mut appetite, &vec![bytes; znodes]).into_iter().map(|(asked, _)| asked).collect()
        };
        assert_eq!(asked(100, 1_000), [2, 4, 8, 16, 24, 64, 128, 256, 56, 442]);
        assert_eq!(asked(500_000, 34), [24, 2, 2, 2, 2, 2], "the first are a surprise");
        assert_eq!(asked(100, 100), [2, 4, 8, 16, 24, 46], "and recovers");
        assert_eq!(asked(900_000, 27), [24, 1, 1, 1], "what only others write");
    }

    #[test]
    fn large_znodes_behind_many_small_ones_are_found_before_hundreds_of_them_are_asked_for() {
        let most_of = |seed: u64| {
            let begin = 2_500 + seed as usize; // wherever in a group
            let sizes: Vec<usize> = (0..3_500).map(|n| if n < begin { 100 } else { 500_000 }).collect();
            requests(&mut seeded(seed), &sizes).into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0)
        };
        let mut most: Vec<usize> = (0..500).map(most_of).collect();
        most.sort_unstable();
        assert!(most[250] <= 8 << 20 && most[490] <= 32 << 20 && most[499] <= 64 << 20, "{:?}", &most[490..]);
    }

    #[test]
    fn the_sample_of_a_group_rides_with_the_group_before() {
        let (mut appetite, mut unread) = (seeded(1), Unread::new(0..500));
        while !unread.is_empty() {
            let bite = appetite.bite(&mut unread);
            appetite.learn(&vec![answer(100); bite.len()]);
        }
        let mut asked = 0;
        for _ in 0..20 {
            unread.unknown.extend(0..200); // as many as come while a request is under way
            let bite = appetite.bite(&mut unread);
            appetite.learn(&vec![answer(100); bite.len()]);
            asked += bite.len();
        }
        assert_eq!(asked, 24 + 19 * 200, "and 176 are left");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_znode_is_asked_for_once_and_an_answer_too_large_by_what_was_not_seen_before(
            sizes in proptest::collection::vec(prop_oneof![4 => 0..2_000usize, 1 => 0..512 * 1024usize], 1..1_000),
            seed: u64,
        ) {
            let mut appetite = seeded(seed);
            let asked = requests(&mut appetite, &sizes);
            prop_assert_eq!(asked.iter().map(|(asked, _)| asked).sum::<usize>(), sizes.len());
            let bytes: usize = sizes.iter().map(|bytes| bytes + STAT_BYTES).sum();
            prop_assert_eq!(asked.iter().map(|(_, bytes)| bytes).sum::<usize>(), bytes);
            for (znodes, bytes) in asked {
                prop_assert!(bytes <= 2 * SAMPLE * (512 * 1024 + STAT_BYTES), "{bytes} of {znodes}");
            }
        }
    }
}
