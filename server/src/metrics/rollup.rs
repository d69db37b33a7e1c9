//! Roll-ups: what is kept when the samples themselves have gone.

use super::{
    chunk::{Samples, Stat},
    grid::Grid,
};

/// The time that a sample of the first roll-up stands for, in seconds.
pub const FINE_S: i64 = 300;
/// The time that a sample of the second roll-up stands for, in seconds; samples are rolled up as much at a time.
pub const COARSE_S: i64 = 3600;
/// The time that a chunk of the second roll-up is of, in seconds: it grows by a sample an hour.
pub const DAY_S: i64 = 24 * 3600;

/// Rolls up what there is from `start_s` on, for one hour, in steps of so many seconds. Steps without samples are left out.
pub fn roll_up(raw: &[Samples], start_s: i64, step_s: i64) -> Samples {
    let steps = (COARSE_S / step_s) as usize;
    let mut grid = Grid::new(start_s, step_s, steps);
    for samples in raw {
        grid.add(samples, start_s, start_s + COARSE_S);
    }
    grid.to_samples()
}

/// One after the other: a day's chunk that an hour comes to.
pub fn join(mut day: Samples, hour: Samples) -> Samples {
    // An hour that was rolled up already isn't there twice.
    let new: Vec<usize> = (0..hour.times.len()).filter(|at| !day.times.contains(&hour.times[*at])).collect();
    let before = day.times.len();
    day.times.extend(new.iter().map(|at| hour.times[*at]));
    for (key, stat, values) in hour.columns {
        let known = day.columns.iter().position(|(known, of, _)| (known, *of) == (&key, stat));
        let column = known.unwrap_or_else(|| {
            day.columns.push((key, stat, vec![None; before]));
            day.columns.len() - 1
        });
        day.columns[column].2.extend(new.iter().map(|at| values[*at]));
    }
    let length = day.times.len();
    for (_, _, values) in &mut day.columns {
        values.resize(length, None);
    }
    day
}

/// All that a roll-up tells of a series.
pub(super) const STATS: [Stat; 3] = [Stat::Average, Stat::Least, Stat::Most];

#[cfg(test)]
mod tests {
    use super::{super::series::*, *};

    fn raw(values: &[(i64, i64)]) -> Samples {
        Samples {
            times: values.iter().map(|(at, _)| *at).collect(),
            columns: vec![(
                Key::whole(Metric::CpuPercent),
                Stat::Average,
                values.iter().map(|(_, value)| Some(*value)).collect(),
            )],
        }
    }

    #[test]
    fn averages_and_extremes() {
        let start = 7200;
        let samples = [raw(&[(start, 100), (start + 290, 400)]), raw(&[(start + 900, 7), (start + 4000, 9999)])];
        let fine = roll_up(&samples, start, FINE_S);
        assert_eq!(fine.times, [start, start + 900]);
        let of = |stat| fine.columns.iter().find(|(_, of, _)| *of == stat).unwrap().2.clone();
        assert_eq!(of(Stat::Average), [Some(250), Some(7)]);
        assert_eq!(of(Stat::Least), [Some(100), Some(7)]);
        assert_eq!(of(Stat::Most), [Some(400), Some(7)]);

        let coarse = roll_up(&samples, start, COARSE_S);
        assert_eq!(coarse.times, [start]);
        let next = roll_up(&[raw(&[(start + 3600, 5)])], start + 3600, COARSE_S);
        let day = join(join(coarse, next), roll_up(&[raw(&[(start + 3600, 5)])], start + 3600, COARSE_S));
        assert_eq!(day.times, [start, start + 3600]);
        assert_eq!(day.columns[0].2, [Some(169), Some(5)]);
    }
}
