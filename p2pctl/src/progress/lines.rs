//! The text of a display: the lines of a bar, a line of a log, or JSON.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::overall::{Current, Overall};
use crate::printer::bytes;
use p2pdi::phrases::counted;
use peerd::transfer::FetchPhase;
use serde_json::{Value, json};
use std::time::Duration;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Documents with a line of their own below the bar.
const CURRENT_MAX: usize = 8;
/// Fewest columns of the bar itself; parts to its right are left out before it gets narrower.
const BAR_MIN: usize = 10;
/// Most columns of the bar itself: a longer one does not tell more.
const BAR_MAX: usize = 60;
/// Columns of a document's name below the bar, of 80.
const NAME_COLUMNS: usize = 40;
/// Holders named in a line; of more, the count is given.
const NAMED_MAX: usize = 3;

/// The bar with its numbers, the documents under way if there are several, and why nothing moves. No line is wider than `columns`. Empty
/// while there is nothing to tell.
pub(super) fn bar(overall: &Overall, columns: usize) -> Vec<String> {
    // A terminal may wrap a line that fills its last column.
    let columns = columns.saturating_sub(1).max(BAR_MIN);
    let mut lines = Vec::new();
    if overall.phase == FetchPhase::Seeding {
        lines.push(seeding(overall));
    } else if overall.bytes > 0 {
        lines.push(total(overall, columns));
        if overall.documents > 1 {
            lines.extend(overall.current.iter().take(CURRENT_MAX).map(|current| current_line(current, columns)));
            let others = overall.current.len().saturating_sub(CURRENT_MAX);
            lines.extend((others > 0).then(|| format!("  and {others} more")));
        }
    }
    lines.extend(overall.waiting.clone());
    lines.iter().map(|line| cut(line, columns)).collect()
}

fn total(overall: &Overall, columns: usize) -> String {
    let rate = format!("{}/s", bytes(overall.bytes_per_second));
    let left = overall.time_left().map_or_else(|| "-".to_owned(), |left| format!("{} left", time(left)));
    // The most important first: what does not fit is left out.
    let parts = [
        format!("{:>3}%", overall.percent()),
        format!("{rate:>12}"),
        format!("{left:>11}"),
        format!("{}/{}", bytes(overall.bytes_done), bytes(overall.bytes)),
        counted(overall.holders, "holder"),
        format!("{}/{} documents", overall.documents_done, overall.documents),
        format!("{} failed", overall.documents_failed),
    ];
    let is_there = |index: usize| match index {
        5 => overall.documents > 1,
        6 => overall.documents_failed > 0,
        _ => true,
    };
    let mut text = String::new();
    for (_, part) in parts.iter().enumerate().filter(|(index, _)| is_there(*index)) {
        let wider = text.width() + 2 + part.width();
        if wider + BAR_MIN > columns {
            break;
        }
        text += "  ";
        text += part;
    }
    let width = columns.saturating_sub(text.width()).clamp(BAR_MIN, BAR_MAX);
    let full = usize::try_from(overall.percent()).unwrap_or(0) * width / 100;
    format!("{}{}{text}", "█".repeat(full), "░".repeat(width - full))
}

fn current_line(current: &Current, columns: usize) -> String {
    let width = NAME_COLUMNS.min(columns / 2);
    let name = cut(&current.name, width);
    let pad = " ".repeat(width.saturating_sub(name.width()));
    let line = format!("  {name}{pad} {:>3}%  {:>10}", current.percent(), bytes(current.bytes));
    match (current.bytes, format!("{line}  {:>12}", format!("{}/s", bytes(current.bytes_per_second)))) {
        (0, _) => format!("  {name}{pad}  searching"),
        (_, with_rate) if with_rate.width() <= columns => with_rate,
        (_, _) => line,
    }
}

/// One line for a log.
pub(super) fn plain(overall: &Overall) -> String {
    if overall.phase == FetchPhase::Seeding {
        return seeding(overall);
    }
    let mut parts = Vec::new();
    if overall.documents > 1 {
        parts.push(format!("{} of {}", overall.documents_done, counted(overall.documents, "document")));
    }
    if overall.documents_failed > 0 {
        parts.push(format!("{} failed", overall.documents_failed));
    }
    if overall.bytes > 0 {
        parts.push(format!("{}% of {}", overall.percent(), bytes(overall.bytes)));
    }
    if overall.phase != FetchPhase::Ended {
        if overall.bytes > 0 && overall.waiting.is_none() {
            parts.push(format!("{}/s", bytes(overall.bytes_per_second)));
            parts.extend(overall.time_left().map(|left| format!("{} left", time(left))));
        }
        parts.extend(from(overall));
        parts.extend(overall.waiting.clone());
    }
    if overall.sent > 0 {
        parts.push(format!("{} sent to others", bytes(overall.sent)));
    }
    if parts.is_empty() {
        parts.push("searching for holders".to_owned());
    }
    parts.join(", ")
}

fn from(overall: &Overall) -> Option<String> {
    match overall.holder_names.as_slice() {
        // A reason to wait names them.
        _ if overall.waiting.is_some() => None,
        [] if overall.holders > 0 => Some(format!("from {}", counted(overall.holders, "holder"))),
        [] => None,
        few if few.len() <= NAMED_MAX => Some(format!("from {}", few.join(", "))),
        many => Some(format!("from {} and {} more", many[..NAMED_MAX].join(", "), many.len() - NAMED_MAX)),
    }
}

fn seeding(overall: &Overall) -> String {
    format!("sharing: {} sent, {}/s", bytes(overall.sent), bytes(overall.sent_per_second))
}

/// `{"progress": …}`; the README lists its fields.
pub(super) fn json(overall: &Overall) -> Value {
    let current: Vec<_> = overall
        .current
        .iter()
        .map(|current| {
            json!({
                "name": current.name,
                "bytes": current.bytes,
                "bytes_done": current.bytes_done,
                "bytes_per_second": current.bytes_per_second,
            })
        })
        .collect();
    json!({
        "progress": {
            "phase": phase(overall.phase),
            "documents": overall.documents,
            "documents_done": overall.documents_done,
            "documents_failed": overall.documents_failed,
            "bytes": overall.bytes,
            "bytes_done": overall.bytes_done,
            "bytes_per_second": overall.bytes_per_second,
            "seconds_left": overall.time_left().map(|left| left.as_secs()),
            "holders": overall.holders,
            "holder_names": overall.holder_names,
            "sent_bytes": overall.sent,
            "sent_bytes_per_second": overall.sent_per_second,
            "waiting": overall.waiting,
            "current": current,
        }
    })
}

fn phase(phase: FetchPhase) -> &'static str {
    match phase {
        FetchPhase::Searching => "searching",
        FetchPhase::Fetching => "fetching",
        FetchPhase::Finishing => "finishing",
        FetchPhase::Seeding => "seeding",
        _ => "ended",
    }
}

/// `42s`, `3m05s`, `2h10m`, `3d04h`.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `text` on at most `columns` columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn overall() -> Overall {
        Overall {
            phase: FetchPhase::Fetching,
            documents: 1,
            bytes: 100 * MIB,
            bytes_done: 42 * MIB,
            bytes_per_second: 2 * MIB,
            holders: 2,
            holder_names: vec!["fff-a".into(), "fff-b".into()],
            ..Overall::default()
        }
    }

    #[test]
    fn the_bar_fits_any_terminal_and_leaves_out_the_least_important() {
        for columns in [12, 40, 60, 80, 200] {
            for line in bar(&overall(), columns) {
                assert!(line.width() < columns, "{columns}: {line}");
                assert!(line.contains('█') && (columns < 20 || line.contains("42%")), "{columns}: {line}");
            }
        }
        let stalled = &bar(&Overall { bytes_per_second: 0, ..overall() }, 80)[0];
        assert!(stalled.contains("0 B/s") && !stalled.contains("left"), "{stalled}");
        let narrow = &bar(&overall(), 40)[0];
        assert!(narrow.contains("2.0 MiB/s") && !narrow.contains("holders"), "{narrow}");
        let wide = &bar(&overall(), 100)[0];
        for part in ["42.0 MiB/100.0 MiB", "2.0 MiB/s", "29s left", "2 holders"] {
            assert!(wide.contains(part), "{part}: {wide}");
        }
    }

    #[test]
    fn a_second_line_says_why_nothing_moves() {
        let why = "waiting for fff-b, last byte 3 s ago; asking for more holders";
        let waiting = Overall { waiting: Some(why.into()), bytes_per_second: 0, ..overall() };
        let lines = bar(&waiting, 80);
        assert_eq!((lines.len(), lines[1].as_str()), (2, why));
        assert_eq!(plain(&waiting), format!("42% of 100.0 MiB, {why}"));
        assert!(bar(&Overall::default(), 80).is_empty());
    }

    #[test]
    fn several_documents_have_lines_of_their_own() {
        let current =
            |n: u32| Current { name: format!("models/{n}-日本.bin"), bytes: MIB, bytes_done: MIB / 2, bytes_per_second: 1 };
        let several = Overall { documents: 20, documents_done: 3, current: (0..10).map(current).collect(), ..overall() };
        let lines = bar(&several, 100);
        assert_eq!(lines.len(), 1 + CURRENT_MAX + 1, "{lines:#?}");
        assert!(lines[0].contains("3/20 documents") && lines[1].contains(" 50%") && lines[9] == "  and 2 more", "{lines:#?}");
        assert!(lines[1..9].iter().all(|line| line.width() == lines[1].width()), "{lines:#?}");
    }

    #[test]
    fn a_line_of_a_log_and_json_have_the_same_numbers() {
        let several = Overall { documents: 20, documents_done: 3, documents_failed: 1, ..overall() };
        assert_eq!(plain(&several), "3 of 20 documents, 1 failed, 42% of 100.0 MiB, 2.0 MiB/s, 29s left, from fff-a, fff-b");
        let json = &json(&several)["progress"];
        assert_eq!((json["bytes_done"].as_u64(), json["seconds_left"].as_u64()), (Some(42 * MIB), Some(29)), "{json}");
        assert_eq!((json["phase"].as_str(), json["waiting"].is_null()), (Some("fetching"), true), "{json}");
    }

    #[test]
    fn times_have_at_most_two_units() {
        let texts = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d01h"]);
    }
}
