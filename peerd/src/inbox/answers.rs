//! Replies to messages that arrived lately, for senders that ask again: a link may end between a message and the reply to it, and then the
//! sender sends the message once more another way, with the same id.

use super::{reply::Reply, seen::Id};
use futures_util::{FutureExt as _, future::Shared};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// Messages whose replies are kept: with all replies at their longest, 8 MiB. A sender tries again within milliseconds when a link ends.
const KEPT_MAX: usize = 128;

/// The reply of a handler, when it comes; an error when there will be none. Cheap to clone.
pub(super) type Answer = Shared<oneshot::Receiver<Reply>>;

/// See the module.
#[derive(Default)]
pub(super) struct Answers(VecDeque<(String, Id, Answer)>);

impl Answers {
    /// Keeps the reply to the message of `sender` with this id. One with an id that is not 16 bytes long cannot be asked for again.
    pub(super) fn keep(&mut self, sender: &str, id: &[u8], reply: oneshot::Receiver<Reply>) -> Answer {
        let answer = reply.shared();
        if let Ok(id) = Id::try_from(id) {
            if self.0.len() >= KEPT_MAX {
                self.0.pop_front();
            }
            self.0.push_back((sender.to_ascii_lowercase(), id, answer.clone()));
        }
        answer
    }

    /// The reply to the message of `sender` with this id, if it is kept.
    pub(super) fn find(&self, sender: &str, id: &[u8]) -> Option<Answer> {
        let is_of = |(other, other_id, _): &&(String, Id, Answer)| other_id == id && other.eq_ignore_ascii_case(sender);
        self.0.iter().rev().find(is_of).map(|(_, _, answer)| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_is_given_to_all_that_ask_before_and_after_it_came() {
        let mut answers = Answers::default();
        let (sender, receiver) = oneshot::channel();
        let first = answers.keep("Alice", &[1; 16], receiver);
        let second = answers.find("alice", &[1; 16]).expect("it is kept");
        assert!(answers.find("bob", &[1; 16]).is_none() && answers.find("alice", &[2; 16]).is_none());
        sender.send(Reply::new("PONG", "here")).unwrap();
        assert_eq!(first.await.unwrap(), Reply::new("PONG", "here"));
        assert_eq!(second.await.unwrap(), Reply::new("PONG", "here"));
        assert_eq!(answers.find("alice", &[1; 16]).unwrap().await.unwrap(), Reply::new("PONG", "here"));
    }

    #[test]
    fn the_latest_are_kept() {
        let mut answers = Answers::default();
        let id = |number: usize| u128::try_from(number).unwrap().to_be_bytes();
        for number in 0..=KEPT_MAX {
            let _answer = answers.keep("alice", &id(number), oneshot::channel().1);
        }
        let _without_an_id = answers.keep("alice", &[], oneshot::channel().1);
        assert!(answers.find("alice", &id(0)).is_none() && answers.find("alice", &id(1)).is_some());
        assert_eq!(answers.0.len(), KEPT_MAX);
    }
}
