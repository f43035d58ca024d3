//! How an attempt is ended, against a model of the two znodes of a task, without a server.

use std::time::Duration;

use herdsman::decide::completion::{Context, End, Next, refused, write};
use proptest::prelude::*;
use tree::{Assignment, Policy, TaskId, TaskState};
use znode::{Op, Refusal};

/// The version at which the task is assigned.
const VERSION: i32 = 3;
const NOW_MS: i64 = 1_000_000;
/// An outcome, a failure in its place, or a task marked dead in its place: there is no longer way.
const WRITES_MAX: usize = 2;

#[derive(Debug, Clone)]
struct Znode {
    version: i32,
    data: Vec<u8>,
}

/// The task's znode, and the one of its payload and then its outcome.
#[derive(Debug, Clone)]
struct Tree {
    task: Option<Znode>,
    stored: Option<Znode>,
    outcomes: usize,
    states: usize,
}

impl Tree {
    fn new(state: &TaskState) -> Self {
        let task = Some(Znode { version: VERSION, data: state.to_json() });
        Tree { task, stored: Some(Znode { version: 0, data: b"payload".to_vec() }), outcomes: 0, states: 0 }
    }

    /// Applies all of it, or nothing and says which operation was refused.
    fn multi(&mut self, ops: &[Op], id: &TaskId) -> Result<(), (usize, Refusal)> {
        let mut next = self.clone();
        for (at, op) in ops.iter().enumerate() {
            let (Op::Set { path, version, .. } | Op::Delete { path, version }) = op else { panic!("{op:?}") };
            let is_task = *path == id.path();
            assert!(is_task || *path == id.data_path(), "somebody else's znode: {path}");
            let slot = if is_task { &mut next.task } else { &mut next.stored };
            let Some(znode) = slot else { return Err((at, Refusal::NoNode)) };
            if version.is_some_and(|version| version != znode.version) {
                return Err((at, Refusal::BadVersion));
            }
            match op {
                Op::Set { data, .. } => {
                    *znode = Znode { version: znode.version + 1, data: data.clone() };
                    if is_task { next.states += 1 } else { next.outcomes += 1 }
                }
                _ => *slot = None,
            }
        }
        *self = next;
        Ok(())
    }
}

/// What somebody else does just before a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Nobody,
    Completes,
    MovesOn,
    RewritesThePayload,
    RemovesThePayload,
}

/// What becomes of a write and its answer.
#[derive(Debug, Clone)]
enum Fate {
    Answered,
    /// Applied, the answer lost, and a second try refused.
    LostApplied,
    /// Not applied, and tried again.
    LostNotApplied,
    Refused(usize, Refusal),
    SessionOver {
        applied: bool,
    },
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Outcome(b"outcome".to_vec())),
        Just(End::Failed("timed out".to_owned())),
        (any::<bool>(), proptest::option::of(0_u64..9)).prop_map(|(begun, lacking)| End::HandedBack {
            error: begun.then(|| "its worker stopped".to_owned()),
            lacking_for: lacking.map(Duration::from_secs),
        }),
        Just(End::Malformed("nonsense".to_owned())),
    ]
}

fn steps() -> impl Strategy<Value = (Rival, Fate)> {
    let refusal = prop_oneof![
        Just(Refusal::NodeExists),
        Just(Refusal::NotEmpty),
        Just(Refusal::TooLarge { bytes: 2, limit: 1 }),
        Just(Refusal::Other("not authorized".to_owned())),
    ];
    let rival = prop_oneof![
        4 => Just(Rival::Nobody),
        1 => Just(Rival::Completes),
        1 => Just(Rival::MovesOn),
        1 => Just(Rival::RewritesThePayload),
        1 => Just(Rival::RemovesThePayload),
    ];
    let fate = prop_oneof![
        3 => Just(Fate::Answered),
        1 => Just(Fate::LostApplied),
        1 => Just(Fate::LostNotApplied),
        2 => (0_usize..2, refusal).prop_map(|(at, refusal)| Fate::Refused(at, refusal)),
        1 => any::<bool>().prop_map(|applied| Fate::SessionOver { applied }),
    ];
    (rival, fate)
}

fn state_of(tree: &Tree) -> TaskState {
    TaskState::from_json(&tree.task.as_ref().expect("it waits or is dead").data).expect("valid")
}

/// What the state says that this write has left, by its end.
fn check_written(tree: &Tree, before: &TaskState, policy: &Policy, end: &End) {
    let Some(_) = &tree.task else { return assert!(matches!(end, End::Outcome(_))) };
    let state = state_of(tree);
    match end {
        End::Outcome(_) => panic!("a completed task is still there"),
        End::Failed(error) => {
            let last = before.failures + 1 >= policy.max_attempts;
            assert_eq!((state.attempt, state.failures), (before.attempt + 1, before.failures + 1));
            assert_eq!((state.dead, state.not_before_ms.is_none()), (last, last));
            assert_eq!(&state.last().expect("an attempt").error, error);
            let waits = state.not_before_ms.map_or(policy.backoff_ms as i64, |at| at - NOW_MS);
            assert!(waits >= policy.backoff_ms as i64 / 2 && waits <= policy.backoff_max_ms as i64, "{waits}");
        }
        End::HandedBack { error, lacking_for } => {
            assert_eq!(state.attempt, before.attempt + u32::from(error.is_some()));
            assert_eq!((state.failures, state.dead), (before.failures, before.dead));
            assert_eq!(state.returned_by.as_deref(), Some("w"));
            assert_eq!(state.returned_for_ms, lacking_for.map(|pause| pause.as_millis() as u64));
        }
        End::Malformed(_) => assert!(state.dead && state.last().is_some()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn an_attempt_is_ended_once_and_whatever_is_refused_is_answered(
        first in ends(),
        steps in proptest::collection::vec(steps(), WRITES_MAX),
        failures in 0_u32..3,
        jitter in 0.0..=1.0,
    ) {
        let policy = Policy { max_attempts: 3, backoff_ms: 100, backoff_max_ms: 1_000, ..Policy::default() };
        let state = TaskState { failures, attempt: failures, ..TaskState::default() };
        let task = "j".parse::<tree::JobId>().expect("an id").task(0);
        let assignment = Assignment { task: task.clone(), version: VERSION };
        let context = Context {
            worker: "w", assignment: &assignment, policy: &policy, state: &state, now_ms: NOW_MS, jitter,
        };
        let (mut tree, mut end, mut ours, mut spoilt) = (Tree::new(&state), first, 0, false);
        let mut over = false;
        for (rival, fate) in steps {
            match (rival, tree.task.as_mut(), tree.stored.as_mut()) {
                (Rival::Completes, Some(_), Some(stored)) if stored.version == 0 => {
                    (stored.version, stored.data) = (1, b"theirs".to_vec());
                    tree.task = None;
                }
                (Rival::MovesOn, Some(task), _) => task.version += 1,
                (Rival::RewritesThePayload, Some(_), Some(stored)) => (stored.version, spoilt) = (1, true),
                (Rival::RemovesThePayload, Some(_), _) => (tree.stored, spoilt) = (None, true),
                _ => {}
            }
            let before = tree.clone();
            let ops = write(context, &end);
            let outcome = matches!(end, End::Outcome(_));
            let answer = match &fate {
                Fate::Answered | Fate::LostNotApplied => tree.multi(&ops, &task),
                Fate::LostApplied => tree.multi(&ops, &task).and_then(|()| tree.multi(&ops, &task)),
                Fate::Refused(at, refusal) => Err((*at % ops.len(), refusal.clone())),
                Fate::SessionOver { applied } => {
                    let _ = if *applied { tree.multi(&ops, &task) } else { Ok(()) };
                    Ok(()) // whoever leads then sees that the assignment is nobody's
                }
            };
            let applied = tree.outcomes + tree.states > before.outcomes + before.states;
            ours += usize::from(applied);
            prop_assert!(ours <= 1, "it was ended twice");
            if applied {
                prop_assert_eq!(before.task.as_ref().map(|znode| znode.version), Some(VERSION), "another's attempt");
                check_written(&tree, &state, &policy, &end);
                if outcome {
                    prop_assert_eq!(before.stored.as_ref().map(|znode| znode.version), Some(0), "overwritten");
                }
            }
            let Err((at, refusal)) = answer else { over = true; break };
            match refused(&assignment, outcome, at, &refusal) {
                Next::Over => {
                    let version = tree.task.as_ref().map(|znode| znode.version);
                    prop_assert_ne!(version, Some(VERSION), "silence, though nobody has ended it");
                    over = true;
                    break;
                }
                Next::Unsayable(path) => {
                    prop_assert!(!outcome && path == task.path() && !applied, "{}", path);
                    over = true;
                    break;
                }
                Next::Write(next) => {
                    prop_assert!(outcome && !applied, "said twice");
                    match &next {
                        End::Failed(error) => prop_assert!(error.contains(&refusal.to_string())),
                        End::Malformed(_) => prop_assert!(spoilt, "dead, though its payload was as it should be"),
                        other => prop_assert!(false, "{:?}", other),
                    }
                    end = next;
                }
            }
        }
        prop_assert!(over, "it does not come to an end");
    }
}
