//! When a store's login is checked: in slots while all is well, after growing pauses while it fails. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Timings, duration, slots};
use crate::{
    crd::v1alpha1::RetrySettings,
    fault::{Fault, Reason, Retry, retry},
};

/// How often a store is checked when its spec does not say: one hour.
pub const DEFAULT_INTERVAL: Duration = Duration::from_hours(1);

/// What a store's spec says about its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checking {
    /// `None`: once for each generation and credential.
    pub interval: Option<Duration>,
    /// How often a failed check is repeated before the next regular one; `None` without end.
    pub retries: Option<u32>,
    /// Pause before the first repetition, if not the operator's own.
    pub pause: Option<Duration>,
}

impl Checking {
    /// Reads `refreshInterval` and `retrySettings`.
    ///
    /// # Errors
    /// `InvalidSpec` naming the field.
    pub fn of(interval: Option<&IntOrString>, settings: Option<&RetrySettings>) -> Result<Self, Fault> {
        let interval = match interval {
            None => DEFAULT_INTERVAL,
            Some(IntOrString::Int(seconds)) => Duration::from_secs(
                u64::try_from(*seconds).map_err(|_| invalid("spec.refreshInterval", duration::DurationError::Negative))?,
            ),
            Some(IntOrString::String(text)) => duration::parse(text).map_err(|error| invalid("spec.refreshInterval", error))?,
        };
        let pause = settings.and_then(|settings| settings.retry_interval.as_deref()).map(duration::parse).transpose();
        Ok(Self {
            interval: Some(interval).filter(|interval| !interval.is_zero()),
            retries: settings.and_then(|settings| settings.max_retries),
            pause: pause.map_err(|error| invalid("spec.retrySettings.retryInterval", error))?.filter(|pause| !pause.is_zero()),
        })
    }

    /// Time until the next check by interval, the same in every life of the operator; `None` for never.
    #[must_use]
    pub fn regular(&self, store_uid: &str, now: Timestamp) -> Option<Duration> {
        let period = slots::period(self.interval?);
        let now = i64::try_from(now.as_nanosecond()).ok()?;
        let slot = slots::at_or_after(slots::hash_of_store(store_uid), period, now.saturating_add(1));
        u64::try_from(slot - now).ok().map(Duration::from_nanos)
    }

    /// Time until a check that failed for the n-th time in a row is repeated; `None` when nothing but a change, or the next regular
    /// check, can help. Never longer than the interval.
    #[must_use]
    pub fn again(&self, fault: &Fault, failures: u32, store_uid: &str, timings: &Timings) -> Option<Duration> {
        if self.retries.is_some_and(|most| failures > most) {
            return None;
        }
        let jitter = slots::fraction(slots::hash_of_store(store_uid), failures);
        let pause = match retry(fault) {
            Retry::AwaitChange => return None,
            Retry::DeniedPause => timings.denied.mul_f64(0.9 + 0.2 * jitter),
            Retry::Hinted(hint) => hint.unwrap_or(timings.backoff).clamp(timings.backoff, timings.backoff_max).mul_f64(1.0 + 0.25 * jitter),
            Retry::AbsentBackoff | Retry::UnavailableBackoff | Retry::ObjectBackoff => self.growing(failures, jitter, timings),
        };
        Some(self.interval.map_or(pause, |interval| pause.min(interval)))
    }

    fn growing(&self, failures: u32, jitter: f64, timings: &Timings) -> Duration {
        let first = self.pause.unwrap_or(timings.backoff);
        let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16)));
        doubled.min(timings.backoff_max.max(first)).mul_f64(0.75 + 0.5 * jitter)
    }
}

fn invalid(field: &str, error: duration::DurationError) -> Fault {
    Fault::invalid(Reason::InvalidSpec, format!("{field} cannot be used: {error}; write a Go duration such as 1h30m"))
}

#[cfg(test)]
mod tests {
    use super::{Checking, DEFAULT_INTERVAL, Duration, Fault, IntOrString, Reason, RetrySettings, Timestamp, Timings};
    use crate::fault::Class;

    #[expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are used")]
    fn of(interval: Option<IntOrString>, retries: Option<u32>, pause: Option<&str>) -> Result<Checking, Fault> {
        let settings = RetrySettings { max_retries: retries, retry_interval: pause.map(str::to_owned) };
        Checking::of(interval.as_ref(), Some(&settings))
    }

    #[test]
    fn an_interval_is_a_duration_or_whole_seconds_and_zero_means_once() {
        let text = |text: &str| Some(IntOrString::String(text.to_owned()));
        let cases = [
            (None, Some(DEFAULT_INTERVAL)),
            (text("90s"), Some(Duration::from_secs(90))),
            (Some(IntOrString::Int(30)), Some(Duration::from_secs(30))),
            (Some(IntOrString::Int(0)), None),
            (text("0"), None),
        ];
        for (interval, expected) in cases {
            assert_eq!(of(interval.clone(), None, None).unwrap().interval, expected, "{interval:?}");
        }
        for wrong in [text("soon"), Some(IntOrString::Int(-1))] {
            let fault = of(wrong, None, None).unwrap_err();
            assert!(fault.reason == Reason::InvalidSpec && fault.detail.contains("refreshInterval"), "{fault}");
        }
        assert!(of(None, None, Some("soon")).unwrap_err().detail.contains("retryInterval"));
    }

    #[test]
    fn regular_checks_come_once_in_every_interval_and_a_restart_computes_the_same() {
        let checking = of(None, None, None).unwrap();
        let mut now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for n in 0..10 {
            let wait = checking.regular("uid", now).unwrap();
            assert!(wait <= DEFAULT_INTERVAL && wait > Duration::ZERO, "{wait:?}");
            assert!(n == 0 || wait == DEFAULT_INTERVAL * 8 / 9, "from slot to slot: {wait:?}");
            let half = now.checked_add(jiff::SignedDuration::try_from(wait / 2).unwrap()).unwrap();
            let rest = checking.regular("uid", half).unwrap();
            assert!((wait / 2 + rest).abs_diff(wait) < Duration::from_micros(1), "{wait:?} {rest:?}");
            now = now.checked_add(jiff::SignedDuration::try_from(wait).unwrap()).unwrap();
        }
        assert_eq!(of(Some(IntOrString::Int(0)), None, None).unwrap().regular("uid", now), None);
    }

    #[test]
    fn pauses_grow_up_to_the_interval_and_end_with_the_retries() {
        let timings = Timings::default();
        let failing = Fault::unavailable("x");
        let pauses = |checking: &Checking| -> Vec<Option<u64>> {
            (1..=12).map(|n| checking.again(&failing, n, "uid", &timings).map(|pause| pause.as_secs())).collect()
        };
        let grown = pauses(&of(None, None, None).unwrap());
        assert!(grown[0] <= Some(1) && grown[3] >= Some(6) && grown.iter().all(|pause| *pause <= Some(375)), "{grown:?}");
        assert!(pauses(&of(Some(IntOrString::Int(20)), None, None).unwrap()).iter().all(|pause| *pause <= Some(20)));
        let bounded = pauses(&of(None, Some(2), Some("1m")).unwrap());
        assert!(bounded[0] >= Some(45) && bounded[1].is_some() && bounded[2..].iter().all(Option::is_none), "{bounded:?}");
    }

    #[test]
    fn stores_that_fail_together_are_spread() {
        let (timings, checking) = (Timings::default(), of(None, None, None).unwrap());
        let hint = Duration::from_secs(100);
        let cases = [
            (Fault::access_denied("x"), 1, timings.denied, (0.9, 1.1)),
            (Fault::throttled(Some(hint), "x"), 1, hint, (1.0, 1.25)),
            (Fault::unavailable("x"), 1, timings.backoff, (0.75, 1.25)),
            (Fault::unavailable("x"), 4, timings.backoff * 8, (0.75, 1.25)),
        ];
        for (fault, failures, pause, (least, most)) in cases {
            let parts: Vec<f64> = (0..1_000)
                .map(|n| checking.again(&fault, failures, &format!("uid-{n}"), &timings).unwrap().div_duration_f64(pause))
                .collect();
            let (low, high) = parts.iter().fold((f64::MAX, f64::MIN), |(low, high), part| (low.min(*part), high.max(*part)));
            assert!(low >= least && low < least + 0.02 && high <= most && high > most - 0.02, "{fault}: {low} to {high}");
        }
    }

    #[test]
    fn each_fault_has_its_pause() {
        let timings = Timings::default();
        let checking = of(None, None, None).unwrap();
        let again = |fault: Fault| checking.again(&fault, 1, "uid", &timings).map(|pause| pause.as_secs());
        assert!(again(Fault::access_denied("x")) >= Some(540), "the pause of what is denied");
        assert!(again(Fault::throttled(Some(Duration::from_secs(30)), "x")) >= Some(30), "the hint");
        assert_eq!(again(Fault::invalid(Reason::InvalidSpec, "x")), None, "only a change helps");
        assert_eq!(again(Fault::not_allowed("x")), None);
        assert!(again(Fault::new(Class::Unavailable, Reason::Sealed, "x")) <= Some(1));
    }
}
