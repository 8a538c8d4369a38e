//! The hours of a day in which uploads may go.

use std::{fmt, str::FromStr, time::Duration};

const DAY_MINUTES: u32 = 24 * 60;

/// From one time of the day to another, every day; over midnight where the second is the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from_min: u32,
    to_min: u32,
}

/// What is wrong with the text of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not two times of a day such as 22:00-06:00")]
pub struct NotAWindow;

impl Window {
    /// Tells whether a time of the day is in it. It begins with its first minute and ends before its last.
    pub const fn holds(&self, second_of_day: u32) -> bool {
        let minute = second_of_day / 60;
        if self.from_min < self.to_min {
            self.from_min <= minute && minute < self.to_min
        } else {
            self.from_min <= minute || minute < self.to_min
        }
    }

    /// Returns how long it is until it opens or closes; a clock that is set meanwhile makes that wrong.
    pub fn changes_in(&self, second_of_day: u32) -> Duration {
        let edge = if self.holds(second_of_day) { self.to_min } else { self.from_min };
        let day = DAY_MINUTES * 60;
        Duration::from_secs(u64::from((edge * 60 + day - second_of_day % day - 1) % day + 1))
    }
}

impl FromStr for Window {
    type Err = NotAWindow;

    fn from_str(text: &str) -> Result<Self, NotAWindow> {
        let (from, to) = text.split_once('-').ok_or(NotAWindow)?;
        let (from_min, to_min) = (minute(from)?, minute(to)?);
        let from_min = from_min % DAY_MINUTES;
        // From midnight to midnight is the whole day, and not nothing.
        let to_min = if from_min == 0 { to_min } else { to_min % DAY_MINUTES };
        if from_min == to_min { Err(NotAWindow) } else { Ok(Self { from_min, to_min }) }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_min, to_min } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from_min / 60, from_min % 60, to_min / 60, to_min % 60)
    }
}

fn minute(text: &str) -> Result<u32, NotAWindow> {
    let (hour, minute) = text.trim().split_once(':').ok_or(NotAWindow)?;
    let number = |text: &str| match text.len() {
        1 | 2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u32>().map_err(|_| NotAWindow),
        _ => Err(NotAWindow),
    };
    match (number(hour)?, number(minute)?) {
        (hour @ 0..=23, minute @ 0..=59) => Ok(hour * 60 + minute),
        (24, 0) => Ok(DAY_MINUTES),
        _ => Err(NotAWindow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u32, minute: u32, second: u32) -> u32 {
        (hour * 60 + minute) * 60 + second
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let window: Window = "22:00-06:00".parse().unwrap();
        for (time, is_open, seconds) in [
            (at(22, 0, 0), true, 8 * 3600),
            (at(23, 59, 59), true, 6 * 3600 + 1),
            (at(0, 0, 0), true, 6 * 3600),
            (at(5, 59, 59), true, 1),
            (at(6, 0, 0), false, 16 * 3600),
            (at(21, 59, 59), false, 1),
        ] {
            assert_eq!(window.holds(time), is_open, "{time}");
            assert_eq!(window.changes_in(time).as_secs(), seconds, "{time}");
        }
        let day: Window = "8:30 - 24:00".parse().unwrap();
        assert!(day.holds(at(23, 59, 59)) && !day.holds(at(8, 29, 59)) && !day.holds(0));
        assert_eq!(day.changes_in(at(23, 0, 0)).as_secs(), 3600);
    }

    #[test]
    fn what_is_no_window_is_refused_and_a_window_is_shown_as_it_is_read() {
        for wrong in [
            "",
            "22:00",
            "22-6",
            "24:01-06:00",
            "25:00-06:00",
            "12:60-13:00",
            "08:00-08:00",
            "24:00-00:00",
            "-1:00-2:00",
            "+8:00-9:00",
        ] {
            assert_eq!(wrong.parse::<Window>(), Err(NotAWindow), "{wrong:?}");
        }
        let window: Window = " 7:05 - 24:00 ".parse().unwrap();
        assert_eq!(window.to_string(), "07:05-00:00");
        assert_eq!(window.to_string().parse(), Ok(window));
        let whole: Window = "0:00-24:00".parse().unwrap();
        assert!(whole.holds(0) && whole.holds(at(23, 59, 59)));
        assert_eq!(whole.to_string().parse(), Ok(whole));
    }
}
