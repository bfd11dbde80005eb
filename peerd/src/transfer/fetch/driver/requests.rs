//! The requests of a driver: those that its planner decides, and those that were sent before.

use super::{Driver, Request, Setting};
use crate::transfer::{
    fetch::{
        download::{Incoming, RangeRequest, SourceError, open_range},
        opened::Opened,
        run::{Control, Run},
    },
    plan::{Event, HolderId, RequestId},
};
use std::{ops::Range, sync::Arc, time::Instant};

impl Driver<'_> {
    /// The requests that were sent before there was a plan are part of it. `is_alone`: nobody else is known to fetch or to have the document.
    pub(super) fn take_over(&mut self, opened: Opened, is_alone: bool) {
        let Some(index) = self.holders.find(&opened.source) else { return };
        if let Some(holder) = self.holders.get(index).planned {
            self.planner.handle(Event::Delay { holder, delay: opened.delay }, Instant::now());
        }
        for run in opened.runs {
            let Some(holder) = self.holders.get(index).planned else { return };
            let began = run.stream.began();
            if !is_alone && began.is_some() && run.pieces.len() > 1 {
                // All of the document, of which the plan leaves most to others.
                self.opened = Some((holder, run));
                continue;
            }
            let Some((request, pieces)) = self.planner.adopt(holder, run.pieces, run.sent) else { continue };
            if let Some(at) = began {
                self.planner.handle(Event::Began { request }, at);
            }
            tracing::debug!(source = %opened.source, ?pieces, "requested pieces before the plan");
            self.receive(request, holder, pieces, began.is_some(), run.stream.open());
        }
    }

    /// Sends a request.
    pub(super) fn request(&mut self, request: RequestId, holder: HolderId, pieces: Range<usize>, in_turn: bool) {
        // If it does not begin as the stream that is open, that is of no use.
        let ready = self.opened.take().filter(|(other, run)| *other == holder && run.pieces.start == pieces.start);
        if let Some((_, run)) = ready {
            return self.receive(request, holder, pieces, false, run.stream.open());
        }
        let Some(index) = self.holders.by_planned(holder) else { return };
        let source = self.holders.get(index).source.clone();
        tracing::debug!(%source, ?pieces, in_turn, "requesting pieces");
        let Setting { channels, swarm, store, stall, .. } = &self.setting;
        let (hash, whole, own_id) = (*swarm.hash(), store.pieces(), swarm.own_id());
        let wanted = RangeRequest { hash, pieces: whole, run: pieces.clone(), in_turn, own_id };
        let (channels, stall) = ((*channels).clone(), *stall);
        let opening = async move { open_range(&channels, &source, wanted, stall).await };
        self.receive(request, holder, pieces, false, opening);
    }

    /// Receives the answer to a request. `has_begun`: its header arrived, and the planner knows.
    fn receive(
        &mut self,
        request: RequestId,
        holder: HolderId,
        pieces: Range<usize>,
        has_begun: bool,
        opening: impl Future<Output = Result<Incoming, SourceError>> + Send + 'static,
    ) {
        let control = Control::new(pieces.end);
        self.requests.insert(request, Request { holder, pieces: pieces.clone(), arrived: 0, control: control.clone() });
        if let Some(index) = self.holders.by_planned(holder) {
            self.count_requests(index);
        }
        let run = Run {
            request,
            pieces,
            has_begun,
            control,
            store: Arc::clone(&self.setting.store),
            events: self.events.clone(),
            limit: self.setting.limit.clone(),
        };
        // Boxed: the state of a stream is large.
        self.streams.spawn(async move { Box::pin(run.receive(opening)).await });
    }
}
