//! The table of results.

use std::time::{Duration, Instant};

pub fn head() {
    println!("{:<40}{:>24}{:>12}{:>8}  {:<12}met", "", "Vmyard", "raw", "ratio", "budget");
}

pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (f(), begun.elapsed())
}

/// Median, and what 19 of 20 are within.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 19 / 20])
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// A row beside raw calls, with a budget for the ratio.
pub fn beside(what: &str, vmyard: Vec<Duration>, raw: Vec<Duration>, budget: f64) {
    let (vmyard, raw) = (spread(vmyard).0, spread(raw).0);
    let ratio = vmyard.as_secs_f64() / raw.as_secs_f64();
    print(what, &ms(vmyard), &ms(raw), Some(ratio), &format!("<= {budget:.1} x"), ratio <= budget);
}

/// A row with a budget of its own; the raw calls are there to compare.
pub fn within(what: &str, vmyard: Vec<Duration>, raw: Vec<Duration>, budget: Duration) {
    let ((vmyard, most), raw) = (spread(vmyard), spread(raw).0);
    let ratio = vmyard.as_secs_f64() / raw.as_secs_f64();
    let value = format!("{} (95 %: {})", ms(vmyard), ms(most));
    print(what, &value, &ms(raw), Some(ratio), &format!("< {} ms", budget.as_millis()), vmyard < budget);
}

/// A row beside raw calls, with a budget for the difference.
pub fn extra(what: &str, vmyard: Vec<Duration>, raw: Vec<Duration>, budget: Duration) {
    let (vmyard, raw) = (spread(vmyard).0, spread(raw).0);
    let ratio = vmyard.as_secs_f64() / raw.as_secs_f64();
    let met = vmyard < raw + budget;
    print(what, &ms(vmyard), &ms(raw), Some(ratio), &format!("< +{} ms", budget.as_millis()), met);
}

/// A row with nothing beside it.
pub fn alone(what: &str, value: &str, budget: &str, met: bool) {
    print(what, value, "", None, budget, met);
}

fn print(what: &str, value: &str, raw: &str, ratio: Option<f64>, budget: &str, met: bool) {
    let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    println!("{what:<40}{value:>24}{raw:>12}{ratio:>8}  {budget:<12}{}", if met { "yes" } else { "NO" });
}
