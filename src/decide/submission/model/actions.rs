//! What can happen to a submission.

use std::collections::BTreeMap;

/// What happens next. A number names one of those that there are; where there is none, nothing happens.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Submit,
    Seal,
    Leave,
    /// The user deals with what it was told first.
    Take,
    /// A request is applied, or refused.
    Apply(u8),
    /// No answer comes to a request, which was applied or not.
    Lose(u8, bool),
    /// A submission is refused for itself.
    Refuse(u8),
    Answer(u8),
    AnswerTwice(u8),
    /// A request that nobody waits for any more is applied.
    ApplyLate(u8),

    Complete(u8),
    Die(u8),
    Retry(u8),
    /// The record is set by somebody: marked.
    Mark,
    SealBySomebody,
    CollectBySomebody(u8),
    CloseBySomebody,

    /// The mirror reads what the first event is about, and hands it over.
    Read,
    /// What it has handed over is looked at.
    Hear,
    HearTwice,
    /// The mirror hears of nothing, until it lists everything.
    LoseWatch,
    List,

    /// What was under way is applied later, or never; a close at once, or never.
    SessionOver(bool),
    /// One step of a rejoin.
    Join,
}

/// A weighted choice, by a number at random.
pub(super) fn action((which, n): (u8, u8)) -> Action {
    match which {
        0..=19 => Action::Submit,
        20..=21 => Action::Seal,
        22 => Action::Leave,
        23..=36 => Action::Take,
        37..=70 => Action::Apply(n),
        71..=80 => Action::Lose(n, which.is_multiple_of(2)),
        81..=82 => Action::Refuse(n),
        83..=116 => Action::Answer(n),
        117..=121 => Action::AnswerTwice(n),
        122..=126 => Action::ApplyLate(n),
        127..=146 => Action::Complete(n),
        147..=156 => Action::Die(n),
        157..=163 => Action::Retry(n),
        164..=165 => Action::Mark,
        166..=167 => Action::SealBySomebody,
        168..=170 => Action::CollectBySomebody(n),
        171..=172 => Action::CloseBySomebody,
        173..=197 => Action::Read,
        198..=222 => Action::Hear,
        223..=228 => Action::HearTwice,
        229..=231 => Action::LoseWatch,
        232..=239 => Action::List,
        240..=243 => Action::SessionOver(n.is_multiple_of(2)),
        244.. => Action::Join,
    }
}

/// Takes one of these.
pub(super) fn pick<T>(from: &mut Vec<T>, k: u8) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(usize::from(k) % from.len()))
}

/// One of these.
pub(super) fn pick_key<T>(from: &BTreeMap<u32, T>, k: u8) -> Option<u32> {
    from.keys().nth(usize::from(k) % from.len().max(1)).copied()
}
