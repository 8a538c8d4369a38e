//! How long to wait after failures: at once, then 5, 10, 20, 40, 60 seconds, jittered.

use std::time::Duration;

/// The longest wait.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// The wait after the second failure; each further one doubles it.
const DELAY_FIRST: Duration = Duration::from_secs(5);

/// Returns the wait after `failures` failures in a row.
///
/// `jitter` is from 0 to 1 and spreads the wait over its upper half, so that a fleet that lost one store
/// does not come back to it in step. The first failure is tried again at once.
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
    let whole = DELAY_FIRST.saturating_mul(1 << doublings.min(8)).min(DELAY_MAX);
    whole.mul_f64(jitter.clamp(0.0, 1.0).mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_are_as_the_design_lists_them() {
        let waits: Vec<_> = (0..9).map(|failures| delay(failures, 1.0).as_secs()).collect();
        assert_eq!(waits, [0, 0, 5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(delay(u32::MAX, 1.0), DELAY_MAX);
    }

    #[test]
    fn jitter_only_shortens_and_by_half_at_most() {
        assert_eq!(delay(6, 0.0), DELAY_MAX / 2);
        assert_eq!(delay(6, f64::NAN.max(0.5)), Duration::from_secs(45));
        assert_eq!(delay(6, 7.0), DELAY_MAX);
    }
}
