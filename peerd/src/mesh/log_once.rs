//! Logs each subject once.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::collections::VecDeque;

/// Subjects remembered, some 100 bytes each; one more pushes out the oldest.
const REMEMBERED_MAX: usize = 1_024;

/// The subjects that were logged lately.
#[derive(Debug)]
pub(super) struct LogOnce<T>(VecDeque<T>);

impl<T> Default for LogOnce<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: PartialEq> LogOnce<T> {
    /// Whether to log `subject`: true the first time.
    pub(super) fn is_new(&mut self, subject: T) -> bool {
        if self.0.contains(&subject) {
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(subject);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_is_new_once_and_memory_is_bounded() {
        let mut log_once = LogOnce::default();
        assert!(log_once.is_new(0) && !log_once.is_new(0));
        for number in 1..3 * REMEMBERED_MAX {
            assert!(log_once.is_new(number));
        }
        assert_eq!(log_once.0.len(), REMEMBERED_MAX);
        assert!(log_once.is_new(0));
    }
}
