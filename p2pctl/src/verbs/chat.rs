//! chat: a conversation through a running peer.

mod line;

use super::mesh;
use crate::{
    args::{Chat, Global},
    call::{CALL_TIMEOUT, RETRY_LIMIT, to_peer},
    failure::{Failure, Outcome},
    printer::{Lines, Printer, Screen, Typed},
    registry_client,
};
use line::Line;
use p2pdi::{
    endpoint::Endpoint,
    name::PeerName,
    v1::{
        BroadcastRequest, Contact, InboxMessage, ListPeersRequest, ListPeersResponse, PingRequest, SubscribeRequest,
        SubscribeResponse, WhisperRequest,
    },
};
use p2pdi::{phrases::counted, retry::when_told};
use peerd::{
    connections::channels::ChannelPool,
    inbox::{KIND_DEFAULT, KIND_UNCLAIMED},
};
use std::{fs, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Streaming};

/// The kind of chat messages. Messages of the default kind, which `whisper` and `broadcast` send, are shown too.
const KIND_CHAT: &str = "chat";
/// Pause between two attempts to reach a peer that went away: short, since it is on this machine.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Peers listed by name; of more, only the number is shown.
const PEERS_SHOWN: usize = 50;

const HELP: &str = "\
What you type goes to all peers of the mesh.
  @name text    to that peer alone; Tab completes names
  /peers        lists the peers
  /quit         ends the chat, as do Ctrl-C and Ctrl-D
  //text        sends /text
Arrow up recalls earlier lines, of earlier chats too.";

/// A chat through one peer.
struct Room {
    via: Endpoint,
    me: PeerName,
    channels: ChannelPool,
    screen: Screen,
    printer: Printer,
}

pub(super) async fn chat(
    global: &Global,
    channels: ChannelPool,
    args: Chat,
    printer: Printer,
    stop: CancellationToken,
) -> Outcome {
    let via = args.via.via;
    let (messages, me) = tokio::select! {
        begun = begin(&channels, &via) => begun?,
        () = stop.cancelled() => return Ok(()),
    };
    let history = registry_client::folder(global.state.as_deref()).filter(|folder| fs::create_dir_all(folder).is_ok());
    let ends = |line: &str| Line::read(line) == Line::Quit;
    let (screen, lines) = Screen::open(printer, me.as_str(), history.map(|folder| folder.join("chat_history")), ends);
    let room = Room { via, me, channels, screen, printer };
    let chatting = async {
        room.screen.note(&format!("you are {} at {}; /help says what you can type", room.me, room.via)).await;
        if let Ok(peers) = room.peers().await {
            contacts(&peers).for_each(|contact| room.screen.meet(&contact.name));
        }
        tokio::select! {
            ended = room.listen(messages) => ended,
            ended = room.talk(lines) => ended,
        }
    };
    tokio::select! {
        ended = chatting => ended,
        // The normal end.
        () = stop.cancelled() => Ok(()),
    }
}

impl Room {
    /// Shows messages until the chat ends; waits for the peer when it goes away.
    async fn listen(&self, mut messages: Streaming<SubscribeResponse>) -> Outcome {
        loop {
            let why = loop {
                match messages.message().await {
                    Ok(Some(answer)) => self.show(answer).await?,
                    Ok(None) => break "it has stopped".to_owned(),
                    Err(status) => break Failure::call(self.via.as_str(), &status).message().to_owned(),
                }
            };
            self.screen.note(&format!("lost the peer at {}: {why}; waiting until it is back", self.via)).await;
            messages = loop {
                sleep(RETRY_INTERVAL).await;
                match subscribe(&self.channels, &self.via).await {
                    Ok(messages) => break messages,
                    Err(failure) => tracing::debug!(why = failure.message(), "the peer is not back yet"),
                }
            };
            self.screen.note(&format!("the peer at {} is back; messages sent meanwhile are not shown", self.via)).await;
        }
    }

    async fn show(&self, answer: SubscribeResponse) -> Outcome {
        if answer.dropped > 0 {
            self.screen.note(&format!("{} came too fast to be shown", counted(answer.dropped, "message"))).await;
        }
        let Some(message) = answer.message else { return Ok(()) };
        if self.printer.is_json() {
            return mesh::show(self.printer, &message);
        }
        let InboxMessage { from, body, broadcast, .. } = &message;
        self.screen.meet(from);
        Ok(self.screen.said(from, *broadcast, &String::from_utf8_lossy(body)).await?)
    }

    /// Sends each typed line until the input ends.
    async fn talk(&self, mut lines: Lines) -> Outcome {
        loop {
            let line = match lines.next().await {
                Typed::Line(line) => line,
                Typed::TooLong(max) => {
                    self.screen
                        .note(&format!("not sent: a line has at most {max} bytes; share larger things as documents"))
                        .await;
                    continue;
                }
                Typed::End => return Ok(()),
            };
            let done = match Line::read(&line) {
                Line::Empty => Ok(None),
                Line::Wrong(why) => Ok(Some(why.to_owned())),
                Line::Help => Ok(Some(HELP.to_owned())),
                Line::Peers => self.peers().await.map(|peers| Some(listed(&peers))),
                Line::ToAll(text) => self.to_all(text).await,
                Line::ToOne(name, text) => self.to_one(name, text).await,
                Line::Quit => return Ok(()),
            };
            match done {
                Ok(Some(note)) => self.screen.note(&note).await,
                Ok(None) => {}
                Err(failure) => self.screen.note(&format!("not sent: {}", failure.message())).await,
            }
        }
    }

    async fn to_all(&self, text: &str) -> Outcome<Option<String>> {
        let request = BroadcastRequest { kind: KIND_CHAT.to_owned(), body: text.to_owned().into(), wait: None };
        let answer = to_peer(
            self.via.as_str(),
            &self.via,
            self.channels.dial(),
            CALL_TIMEOUT,
            self.channels.control(&self.via, None).broadcast(request),
        )
        .await?;
        Ok((answer.known == 0)
            .then(|| "no peer received that: this one knows no other yet; p2pctl join HOST:PORT links it".to_owned()))
    }

    async fn to_one(&self, name: &str, text: &str) -> Outcome<Option<String>> {
        let to: PeerName = name.parse()?;
        let request = WhisperRequest {
            to: to.to_string(),
            kind: KIND_CHAT.to_owned(),
            body: text.to_owned().into(),
            from: self.me.to_string(),
            ..Default::default()
        };
        let client = self.channels.peer(&self.via, None);
        let whisper = when_told(RETRY_LIMIT, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.whisper(request).await }
        });
        let answer = to_peer(self.via.as_str(), &self.via, self.channels.dial(), CALL_TIMEOUT, whisper).await?;
        Ok((answer.reply_kind == KIND_UNCLAIMED).then(|| format!("{to} is there, but has no chat open")))
    }

    async fn peers(&self) -> Outcome<ListPeersResponse> {
        to_peer(
            self.via.as_str(),
            &self.via,
            self.channels.dial(),
            CALL_TIMEOUT,
            self.channels.peer(&self.via, None).list_peers(ListPeersRequest {}),
        )
        .await
    }
}

fn contacts(peers: &ListPeersResponse) -> impl Iterator<Item = &Contact> {
    peers.neighbours.iter().filter_map(|neighbour| neighbour.peer.as_ref()).chain(&peers.others)
}

fn listed(peers: &ListPeersResponse) -> String {
    let linked = peers.neighbours.iter().filter_map(|neighbour| neighbour.peer.as_ref()).map(|contact| (contact, "linked"));
    let all: Vec<_> = linked.chain(peers.others.iter().map(|contact| (contact, "heard of"))).collect();
    let mut lines: Vec<_> =
        all.iter().take(PEERS_SHOWN).map(|(contact, how)| format!("{} at {}, {how}", contact.name, contact.endpoint)).collect();
    match all.len() {
        0 => return "there are no other peers; p2pctl join HOST:PORT links the peer to others".to_owned(),
        more if more > PEERS_SHOWN => lines.push(format!("and {} more", more - PEERS_SHOWN)),
        _ => {}
    }
    lines.join("\n")
}

/// Fails if the peer does not answer at the start: then the address is wrong. Later it is waited for.
async fn begin(channels: &ChannelPool, via: &Endpoint) -> Outcome<(Streaming<SubscribeResponse>, PeerName)> {
    let messages = subscribe(channels, via).await?;
    let me = to_peer(via.as_str(), via, channels.dial(), CALL_TIMEOUT, channels.peer(via, None).ping(PingRequest {})).await?;
    Ok((messages, me.name.parse()?))
}

/// Subscribes to messages; the subscription is active once its first answer has arrived.
async fn subscribe(channels: &ChannelPool, via: &Endpoint) -> Outcome<Streaming<SubscribeResponse>> {
    let request = SubscribeRequest { kinds: vec![KIND_CHAT.to_owned(), KIND_DEFAULT.to_owned()] };
    let mut client = channels.control(via, None);
    let subscribing = async {
        let mut messages = client.subscribe(request).await?.into_inner();
        messages.message().await?;
        Ok(Response::new(messages))
    };
    to_peer(via.as_str(), via, channels.dial(), CALL_TIMEOUT, subscribing)
        .await
        .map_err(|failure| failure.hint("--via HOST:PORT names the peer to ask"))
}
