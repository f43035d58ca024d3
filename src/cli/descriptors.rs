//! How many files a worker may have open at once, and how many its slots need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a worker has open beside its tasks, about 22, and room for what its handlers open in their turn.
const OWN: u64 = 64;
/// A running program: its three streams, its process, its supervisor; and a share of what is open while one is started.
const OF_A_PROGRAM: u64 = 6;

/// Makes room for so many programs at once: the soft limit is raised where it is too low. As far as is needed and no further,
/// because programs inherit it, and some take long over a large one (they close whatever may be open).
///
/// Errors: what is wrong and what to do about it, where the hard limit is too low.
pub fn make_room(programs: u32) -> Result<(), (String, String)> {
    let now = getrlimit(Resource::Nofile);
    match limits(now.current, now.maximum, programs) {
        Ok(soft) if soft == now.current => Ok(()),
        Ok(soft) => setrlimit(Resource::Nofile, Rlimit { current: soft, maximum: now.maximum }).map_err(|error| {
            let hint = format!("raise it first: ulimit -n {}", needed(programs));
            (format!("cannot raise the limit of open files: {error}"), hint)
        }),
        Err((maximum, fit)) => {
            let needs = needed(programs);
            let fewer = if fit == 0 { String::new() } else { format!(", or --slots {fit}") };
            let error =
                format!("{programs} slots for programs need {needs} open files, and this process may have {maximum}");
            Err((error, format!("raise the limit (ulimit -Hn {needs}; LimitNOFILE={needs} in a systemd unit){fewer}")))
        }
    }
}

fn needed(programs: u32) -> u64 {
    OWN + OF_A_PROGRAM * u64::from(programs)
}

/// The soft limit to have, or the hard one and how many programs fit into that. No limit is `None`.
fn limits(soft: Option<u64>, hard: Option<u64>, programs: u32) -> Result<Option<u64>, (u64, u64)> {
    let needed = needed(programs);
    match (soft, hard) {
        (_, Some(hard)) if hard < needed => Err((hard, hard.saturating_sub(OWN) / OF_A_PROGRAM)),
        (Some(soft), _) if soft < needed => Ok(Some(needed)),
        (soft, _) => Ok(soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_is_raised_as_far_as_the_slots_need_and_the_hard_limit_allows() {
        assert_eq!(limits(Some(1024), Some(4096), 4), Ok(Some(1024)), "enough already");
        assert_eq!(limits(Some(1024), Some(4096), 300), Ok(Some(64 + 1800)));
        assert_eq!(limits(Some(1024), None, 10_000), Ok(Some(64 + 60_000)));
        assert_eq!(limits(None, None, 10_000), Ok(None));
        assert_eq!(limits(Some(1024), Some(1024), 200), Err((1024, 160)));
        assert_eq!(limits(Some(24), Some(24), 1), Err((24, 0)));
    }
}
