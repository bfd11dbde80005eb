//! How much of a stream of messages has arrived of one that is not whole.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// Bytes before each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Where in a stream of messages one is.
#[derive(Debug, Default)]
pub(super) struct Position {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    prefixed: usize,
    /// Bytes of the message that are there, and that are missing, once its prefix is whole.
    read: usize,
    missing: usize,
}

impl Position {
    /// Goes on by `data`; returns whether a message became whole.
    pub(super) fn advance(&mut self, mut data: &[u8]) -> bool {
        let mut finished = false;
        while !data.is_empty() {
            if self.missing > 0 {
                let taken = self.missing.min(data.len());
                (self.read, self.missing, data) = (self.read + taken, self.missing - taken, &data[taken..]);
            } else {
                let taken = (PREFIX_BYTES - self.prefixed).min(data.len());
                self.prefix[self.prefixed..self.prefixed + taken].copy_from_slice(&data[..taken]);
                (self.prefixed, data) = (self.prefixed + taken, &data[taken..]);
                if self.prefixed < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            if self.missing == 0 {
                (*self, finished) = (Self::default(), true);
            }
        }
        finished
    }

    /// Bytes that are there of a message that is not whole.
    pub(super) fn unfinished(&self) -> usize {
        self.prefixed + self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_followed_however_it_is_cut() {
        let message = |length: u32| [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat();
        let stream = [message(0), message(3), message(300), message(0), message(1)].concat();
        for size in 1..stream.len() {
            let mut position = Position::default();
            for part in stream.chunks(size) {
                position.advance(part);
            }
            assert_eq!((position.unfinished(), position.missing), (0, 0), "in parts of {size}");
        }
        let mut position = Position::default();
        position.advance(&[message(3), message(300)[..100].to_vec()].concat());
        assert_eq!((position.unfinished(), position.missing), (100, 205));
    }
}
