//! What clients do in the world, and what they must be shown.

use std::time::Duration;

use rhumb_core::{Epoch, Guarantee, HybridTime};
use rhumb_storage::mvcc::{Record, Snapshot, UserKey};

use super::{Event, KEYS, Looked, MS, SECOND, SPACE, Session, Underway, Waits, World, key};
use crate::ranges::{Ask, Condition, Consistency, Elsewhere, Op, RangeId, RangeRefusal, Reading, Token};

impl World {
    fn draw(&mut self) -> (usize, usize) {
        let keys = if self.brisk { 2 } else { KEYS.len() as u64 };
        (self.rng.below(self.nodes.len() as u64) as usize, self.rng.below(keys) as usize)
    }

    /// The range of a key, as this node has it.
    fn range_of(&self, node: usize, number: usize) -> Option<RangeId> {
        let mut replicas = self.nodes[node].replicas.iter();
        replicas.find(|(_, replica)| replica.descriptor().holds(&key(number))).map(|(range, _)| *range)
    }

    pub(super) fn write(&mut self, session: usize) {
        let wait = self.between(5 * MS, 120 * MS);
        self.after(wait, Event::Write { session });
        let (node, number) = self.draw();
        let Some(range) = self.range_of(node, number) else { return };
        if !self.nodes[node].up || self.nodes[node].stopped_until > self.now {
            return;
        }
        let moment = self.moment(node, range);
        let life = self.nodes[node].life;
        let keys = self.with_another(node, range, number);
        let ops = keys.iter().map(|number| self.put(session, *number, keys.len() > 1)).collect();
        let replica = self.nodes[node].replicas.get_mut(&range).expect("it is one of its");
        if let Ok(command) = replica.propose_write(&moment, ops) {
            self.waiting.insert((range, moment.now), Waits { node, life, session, keys });
            self.append(node, range, command);
        }
    }

    /// A key, and in some cases another one of its range.
    fn with_another(&mut self, node: usize, range: RangeId, number: usize) -> Vec<usize> {
        let other = self.several.below(KEYS.len() as u64) as usize;
        let alone = !self.several.chance(0.3) || other == number || self.range_of(node, other) != Some(range);
        if alone { vec![number] } else { vec![number, other] }
    }

    /// A write of a key: in a batch also under the condition that it is as the session saw it last.
    fn put(&mut self, session: usize, number: usize, in_batch: bool) -> Op {
        let seen = self.sessions[session].seen.get(&number).copied().filter(|seen| *seen > HybridTime::ZERO);
        let condition = seen.map_or(Condition::Absent, Condition::Version);
        let condition = (in_batch && self.several.chance(0.4)).then_some(condition);
        Op { key: key(number), condition, record: Record::put("x") }
    }

    pub(super) fn begin(&mut self, session: usize) -> Result<(), String> {
        let wait = self.between(3 * MS, 60 * MS);
        self.after(wait, Event::Begin { session });
        let (node, number) = self.draw();
        let Some(range) = self.range_of(node, number) else { return Ok(()) };
        if !self.nodes[node].up || self.nodes[node].stopped_until > self.now {
            return Ok(());
        }
        let moment = self.moment(node, range);
        let consistency = match self.rng.below(6) {
            0..2 => Consistency::Strong,
            2..4 => Consistency::Bounded(Duration::from_millis(self.between(300, 5_000))),
            4 => Consistency::Eventual,
            _ => {
                let back = Duration::from_millis(self.between(0, 5_000)).as_millis() as u64;
                Consistency::AsOf(HybridTime::new(moment.now.millis() - back, 0))
            }
        };
        let token = self.sessions[session].token.filter(|_| self.rng.chance(0.7));
        let mut numbers = self.with_another(node, range, number);
        numbers.sort_unstable();
        let behind = |last: &usize| UserKey::new(format!("{}+", KEYS[*last])).expect("short");
        let to = numbers.last().filter(|_| numbers.len() > 1).map(behind);
        let from = key(numbers[0]);
        let ask = Ask { from, to, consistency, token, nearest_only: false, fallback: false };
        let replica = &self.nodes[node].replicas[&range];
        let reading = match replica.begin(&moment, Epoch(0), ask) {
            Ok(reading) => reading,
            Err(Elsewhere::Refused(RangeRefusal::BelowThreshold(threshold))) => {
                self.tally.too_old += 1;
                return match consistency {
                    Consistency::AsOf(at) if !self.is_young(at) => Ok(()),
                    _ => {
                        Err(format!("{consistency:?} at {node} is refused for being older than {threshold}"))
                    }
                };
            }
            Err(_) => return Ok(()),
        };
        let is_old = matches!(consistency, Consistency::AsOf(_));
        let in_use = is_old.then(|| replica.in_use().reads(reading.at));
        let held = replica.permit(&moment).is_ok().then(|| replica.lease().seq);
        let looked = |number: usize| {
            let acked = self.acked[number].iter().map(|(_, at)| *at).max().unwrap_or_default();
            Looked {
                key: number,
                found: self.look(node, number, &reading),
                must: acked.max(self.shown[number]),
                seen: self.sessions[session].seen.get(&number).copied().unwrap_or_default(),
            }
        };
        let read = Underway {
            node,
            life: self.nodes[node].life,
            range,
            session,
            keys: numbers.into_iter().map(looked).collect(),
            consistency,
            reading,
            held,
            _in_use: in_use,
            has_token: token.is_some(),
        };
        // Some read for long, in pieces.
        let is_long = is_old && self.rng.chance(0.3);
        let wait = self.between(0, if is_long { 3 * SECOND } else { 20 * MS });
        if self.rng.chance(0.01) && !self.healed {
            self.nodes[node].stopped_until = self.now + self.rng.between(100 * MS, 6 * SECOND);
        }
        self.after(wait, Event::Finish(Box::new(read)));
        Ok(())
    }

    fn look(&self, node: usize, number: usize, reading: &Reading) -> Option<HybridTime> {
        let snapshot = Snapshot::new(&self.nodes[node].store, SPACE, reading.at, reading.threshold);
        let found = snapshot.expect("it was let in").get(&key(number)).expect("the rows are sound");
        found.map(|version| version.at)
    }

    pub(super) fn finish(&mut self, read: Underway) -> Result<(), String> {
        let Underway { node, range, keys: mut looked, consistency, .. } = read;
        if !self.nodes[node].up || self.nodes[node].life != read.life {
            return Ok(());
        }
        if matches!(consistency, Consistency::AsOf(_)) {
            // Its last piece is read now.
            for one in &mut looked {
                one.found = self.look(node, one.key, &read.reading);
            }
        }
        let moment = self.moment(node, range);
        let at = read.reading.at;
        let lease = self.nodes[node].replicas[&range].lease().seq;
        let finished = self.nodes[node].replicas[&range].finish(&moment, Epoch(0), read.reading, ());
        let answer = match finished {
            Ok(answer) => answer,
            Err(Elsewhere::Refused(RangeRefusal::BelowThreshold(threshold)))
                if self.is_young(at) || read.held == Some(lease) =>
            {
                return Err(format!(
                    "{consistency:?} at {node} was let in, and {threshold} was made the threshold"
                ));
            }
            Err(Elsewhere::Leaseholder(_) | Elsewhere::Refused(_)) => {
                self.tally.given_up += 1;
                return Ok(());
            }
        };
        if let Consistency::AsOf(asked) = consistency
            && answer.at != asked
        {
            return Err(format!("{consistency:?} at {node} is answered as of {}", answer.at));
        }
        let of = (node, consistency, read.has_token);
        looked.iter().try_for_each(|one| self.judge(of, answer.level, one))?;
        self.is_whole(answer.level, &looked)?;
        let is_old = matches!(consistency, Consistency::AsOf(_));
        for Looked { key, found, .. } in looked {
            if answer.level == Guarantee::StrictSerializable {
                self.shown[key] = self.shown[key].max(found.unwrap_or_default());
            }
            if answer.level == Guarantee::Snapshot {
                self.snapshots.push((key, answer.at, found));
            }
            if !is_old {
                self.saw(read.session, key, found, answer.token);
            }
        }
        self.tally.strong += usize::from(answer.level == Guarantee::StrictSerializable);
        self.tally.snapshots += usize::from(answer.level == Guarantee::Snapshot);
        let follows = matches!(consistency, Consistency::Bounded(_)) && answer.level == Guarantee::Snapshot;
        self.served.1 += usize::from(self.healed && follows);
        Ok(())
    }

    /// Whether a key may be shown like this.
    fn judge(
        &self,
        (node, consistency, has_token): (usize, Consistency, bool),
        level: Guarantee,
        looked: &Looked,
    ) -> Result<(), String> {
        let Looked { key, found, must, seen } = *looked;
        let shows = found.unwrap_or_default();
        let what = || format!("{consistency:?} of {} at {node} shows {shows}", KEYS[key]);
        if found.is_some_and(|found| !self.written[key].contains(&found)) {
            return Err(format!("{}, which was never written", what()));
        }
        if level == Guarantee::StrictSerializable && shows < must {
            return Err(format!("{}, and {must} was acknowledged or shown before it began", what()));
        }
        if let Consistency::Bounded(bound) = consistency {
            let bound = bound.as_micros() as u64;
            let due = self.acked[key].iter().filter(|(when, _)| *when + bound <= self.now);
            let due = due.map(|(_, at)| *at).max().unwrap_or_default();
            if shows < due {
                return Err(format!("{}, and {due} was acknowledged before its bound", what()));
            }
        }
        if has_token && !matches!(consistency, Consistency::AsOf(_)) && shows < seen {
            return Err(format!("{}, and its client has seen {seen}", what()));
        }
        Ok(())
    }

    /// Of what was written at one moment all is shown that was asked for, or nothing.
    fn is_whole(&mut self, level: Guarantee, looked: &[Looked]) -> Result<(), String> {
        if looked.len() < 2 || level == Guarantee::Eventual {
            return Ok(());
        }
        self.tally.scans += 1;
        for (at, keys) in &self.batches {
            let shown = looked.iter().filter(|one| keys.contains(&one.key));
            let (with, without): (Vec<_>, Vec<_>) =
                shown.partition(|one| one.found.is_some_and(|found| found >= *at));
            if !with.is_empty() && !without.is_empty() {
                let names = |of: &[&Looked]| of.iter().map(|one| KEYS[one.key]).collect::<String>();
                let (with, without) = (names(&with), names(&without));
                return Err(format!("of the batch at {at} {with} is shown, and {without} is not"));
            }
        }
        Ok(())
    }

    pub(super) fn saw(&mut self, session: usize, key: usize, found: Option<HybridTime>, token: Token) {
        let Session { token: mine, seen } = &mut self.sessions[session];
        *mine = Some(mine.map_or(token, |before| before.and(token)));
        let known = seen.entry(key).or_default();
        *known = (*known).max(found.unwrap_or_default());
    }

    pub(super) fn check_snapshots(&self) -> Result<(), String> {
        for (key, at, found) in &self.snapshots {
            let meant = self.written[*key].iter().filter(|written| *written <= at).max();
            if meant != found.as_ref() {
                return Err(format!("{} as of {at} was {meant:?}, and {found:?} was shown", KEYS[*key]));
            }
        }
        Ok(())
    }
}
