//! What the machines say, case by case.

use std::collections::VecDeque;
use std::time::Duration;

use rhumb_core::Barrier;
use rhumb_core::effects::Release;
use rhumb_core::{DataClass, Fault, FaultKind, Guarantee, HybridTime, Incarnation, Mono, NodeId, Now};
use rhumb_storage::Batch;

use crate::delivery::inbox::MAX_NOTES;
use crate::delivery::keys::{Asked, Ended, Key, KeyTable, Scope, Stored};
use crate::delivery::{
    Arrived, DeliverySettings, Effect, Inbox, Letter, LetterId, Out, Outbox, Token, Verdict,
};

/// The effects of a step, as if every disk were done at once.
fn effects(out: &mut Out) -> Vec<Effect> {
    let (mut barrier, mut done, mut last) = (Barrier::default(), Vec::new(), None);
    barrier.absorb(out, |release| match release {
        Release::Persist(ticket, _) => last = Some(ticket),
        Release::Perform(effect) => done.push(effect),
    });
    if let Some(ticket) = last {
        barrier.durable(ticket, |effect| done.push(effect));
    }
    done
}

fn at(ms: u64) -> Now {
    Now { hybrid: HybridTime::new(1_700_000_000_000 + ms, 0), mono: Mono::millis(ms) }
}

fn asked(key: u8, body: u8, scope: &str) -> Asked {
    let (key, scope) = (Key([key; 32]), Scope(scope.to_owned()));
    Asked { key, body: [body; 32], scope, actors: "t".to_owned(), name: "t.Run".to_owned() }
}

fn answer(bytes: usize) -> Ended {
    let body = vec![7; bytes];
    let stored = Stored { class: DataClass::control(), guarantee: Guarantee::STRONGEST, body };
    Ended { outcome: Ok(stored), may_keep: true, writes: Batch::new() }
}

struct Table(KeyTable, u64);

impl Table {
    fn of(settings: DeliverySettings) -> Self {
        Self(KeyTable::recover(settings, []), 0)
    }

    /// Asks, and says in a word what came of it.
    fn ask(&mut self, asked: Asked) -> String {
        self.1 += 1;
        let mut out = Out::default();
        self.0.asked(at(0), Token(self.1), asked, &mut out);
        words(effects(&mut out))
    }

    /// When it says to come again, in milliseconds.
    fn again(&mut self, ms: u64, asked: Asked) -> Option<u128> {
        self.1 += 1;
        let mut out = Out::default();
        self.0.asked(at(ms), Token(self.1), asked, &mut out);
        effects(&mut out).into_iter().find_map(|effect| match effect {
            Effect::Fault(_, fault) => fault.retry_after.map(|wait| wait.as_millis()),
            _ => None,
        })
    }

    fn end(&mut self, ms: u64, token: u64, ended: Ended) -> String {
        let mut out = Out::default();
        self.0.ended(at(ms), Token(token), ended, &mut out);
        words(effects(&mut out))
    }
}

fn words(effects: Vec<Effect>) -> String {
    let word = |effect: &Effect| match effect {
        Effect::Run(token) => format!("run {}", token.0),
        Effect::Reply(token, stored) => format!("{} gets {} bytes", token.0, stored.body.len()),
        Effect::Fault(token, fault) => format!("{} gets {fault}", token.0),
        Effect::Taken(token) => format!("taken {}", token.0),
        Effect::Send(sending) => {
            let after = sending.after.map(|after| format!(" after {}", after.sequence));
            format!("send {}{}", sending.id.sequence, after.unwrap_or_default())
        }
        Effect::Died(id, dead) => format!("{} died: {}", id.sequence, dead.reason),
        Effect::NoRoom(id) => format!("no room for {}", id.sequence),
        other => format!("{other:?}"),
    };
    effects.iter().map(word).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_first_ask_of_a_key_runs_and_all_others_get_its_answer() {
    let mut table = Table::of(DeliverySettings::default());
    assert_eq!(table.ask(asked(1, 1, "")), "run 1");
    assert_eq!(table.ask(asked(1, 1, "")), "", "it waits");
    assert_eq!(
        table.ask(asked(1, 2, "")),
        "3 gets the idempotency key was used for another \"t.Run\": a new message needs a new key (outcome: not sent)"
    );
    assert_eq!(table.end(0, 1, answer(5)), "1 gets 5 bytes; 2 gets 5 bytes");
    assert_eq!(table.ask(asked(1, 1, "")), "4 gets 5 bytes");
    assert!(table.ask(asked(1, 2, "")).contains("another"));
}

#[test]
fn a_run_without_an_answer_leaves_the_key_free_and_who_waited_hears_how_it_ended() {
    let mut table = Table::of(DeliverySettings::default());
    table.ask(asked(1, 1, ""));
    table.ask(asked(1, 1, ""));
    let panicked = Err(Fault::ran(FaultKind::Panicked("t.Run".to_owned())));
    let ended = table.end(0, 1, Ended { outcome: panicked, may_keep: true, writes: Batch::new() });
    assert_eq!(ended.matches("panicked").count(), 2, "{ended}");
    assert_eq!(table.0.len(), 0);
    assert_eq!(table.ask(asked(1, 2, "")), "run 3", "also for another message");
}

#[test]
fn an_answer_that_may_not_be_kept_leaves_a_mark() {
    let settings = DeliverySettings { key_bytes: 2_000, ..DeliverySettings::default() };
    for (bytes, may_keep) in [(5, false), (1_900, true)] {
        let mut table = Table::of(settings.clone());
        table.ask(asked(1, 1, ""));
        assert_eq!(table.end(0, 1, Ended { may_keep, ..answer(bytes) }), format!("1 gets {bytes} bytes"));
        assert!(table.ask(asked(1, 1, "")).contains("was not kept (outcome: ran)"));
    }
}

#[test]
fn a_program_whose_calls_do_not_end_leaves_room_to_run_for_others() {
    let mut table = Table::of(DeliverySettings::default());
    let of = |number: u16, scope: &str| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Asked { key: Key(key), ..asked(1, 1, scope) }
    };
    for number in 0..1_024 {
        assert_eq!(table.ask(of(number, "client eu/a")), format!("run {}", number + 1));
    }
    assert!(table.ask(of(2_000, "client eu/a")).contains("this program's share"));
    assert!(table.ask(of(2_001, "client eu/b")).starts_with("run"));
    table.end(0, 1, answer(1));
    assert!(table.ask(of(2_002, "client eu/a")).starts_with("run"), "one has ended");
}

#[test]
fn actors_of_one_type_that_hang_leave_room_to_run_for_others() {
    let mut table = Table::of(DeliverySettings::default());
    let of = |number: u16, actors: &str| {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Asked { key: Key(key), actors: actors.to_owned(), ..asked(1, 1, "") }
    };
    for number in 0..2_048 {
        assert_eq!(table.ask(of(number, "hangs")), format!("run {}", number + 1));
    }
    assert!(table.ask(of(5_000, "hangs")).contains("this actor type's share of the keys that run is full"));
    assert!(table.ask(of(5_001, "well")).starts_with("run"));
    let failed = Err(Fault::ran(FaultKind::Panicked("t.Run".to_owned())));
    table.end(0, 1, Ended { outcome: failed, may_keep: true, writes: Batch::new() });
    assert!(table.ask(of(5_002, "hangs")).starts_with("run"), "one has ended");
}

#[test]
fn who_finds_the_table_full_of_answers_hears_when_the_first_is_forgotten() {
    let settings = DeliverySettings { keys: 8, ..DeliverySettings::default() };
    let kept = settings.keys_kept.as_millis();
    let mut table = Table::of(settings);
    for (token, scope) in [(1, "client eu/a"), (2, "client eu/b"), (3, "client eu/b")] {
        table.ask(asked(token, 1, scope));
        table.end(u64::from(token) * 1_000, u64::from(token), answer(1));
    }
    assert_eq!(table.again(4_000, asked(20, 1, "client eu/b")), Some(kept - 2_000), "its own oldest");
    for key in 10..15 {
        table.ask(asked(key, 1, ""));
    }
    assert_eq!(table.again(4_000, asked(20, 1, "client eu/c")), Some(kept - 3_000), "the oldest of all");
    let mut out = Out::default();
    table.0.tick(at(kept as u64 + 1_000), &mut out);
    assert_eq!(table.again(kept as u64 + 1_000, asked(20, 1, "client eu/c")), None, "then there is room");
    let running = DeliverySettings { keys: 1, ..DeliverySettings::default() };
    let mut table = Table::of(running);
    table.ask(asked(1, 1, ""));
    assert_eq!(table.again(0, asked(2, 1, "")), Some(1_000), "what runs may end at any time");
}

#[test]
fn a_full_table_refuses_and_forgets_nothing_before_its_time() {
    let settings = DeliverySettings { keys: 8, ..DeliverySettings::default() };
    let kept = settings.keys_kept.as_millis() as u64;
    let mut table = Table::of(settings);
    assert_eq!(table.ask(asked(1, 1, "client eu/a")), "run 1");
    assert_eq!(table.ask(asked(2, 1, "client eu/a")), "run 2");
    let full = table.ask(asked(3, 1, "client eu/a"));
    assert_eq!(full, "3 gets this program's share of the idempotency table is full (outcome: not sent)");
    for key in 10..16 {
        table.ask(asked(key, 1, ""));
    }
    assert!(table.ask(asked(20, 1, "client eu/b")).contains("the idempotency table is full"));
    table.end(0, 1, answer(1));
    let mut out = Out::default();
    table.0.tick(at(kept - 1), &mut out);
    assert_eq!((table.0.len(), out.is_empty()), (8, true));
    assert_eq!(table.0.next_deadline(at(0)), Some(Mono::millis(kept)));
    table.0.tick(at(kept), &mut out);
    assert_eq!((table.0.len(), table.0.bytes()), (7, 7 * 160), "the others still run");
    assert!(table.ask(asked(20, 1, "client eu/b")).starts_with("run"));
}

fn letter(key: &str, written_ms: u64) -> Letter {
    Letter {
        to: node(),
        target: format!("t/{key}"),
        shown: "t#1".to_owned(),
        stream: String::new(),
        name: "t.Do".to_owned(),
        class: DataClass::control(),
        body: vec![1; 10],
        key: None,
        within_ms: 5_000,
        written: at(written_ms).hybrid,
    }
}

fn node() -> NodeId {
    "eu/n1".parse().expect("a node")
}

fn id(sequence: u64) -> LetterId {
    LetterId { epoch: Incarnation(5), sequence }
}

struct Box(Outbox);

impl Box {
    fn of(settings: DeliverySettings) -> Self {
        Self(Outbox::recover(settings, Incarnation(5), [], []))
    }

    fn tell(&mut self, ms: u64, key: &str) -> String {
        let mut out = Out::default();
        self.0.tell(at(ms), Token(1), letter(key, ms), &mut out);
        words(effects(&mut out))
    }

    fn hear(&mut self, ms: u64, sequence: u64, verdict: Verdict) -> String {
        let mut out = Out::default();
        self.0.answered(at(ms), id(sequence), verdict, &mut out);
        words(effects(&mut out))
    }

    fn tick(&mut self, ms: u64) -> String {
        let mut out = Out::default();
        self.0.tick(at(ms), &mut out);
        words(effects(&mut out))
    }
}

fn unknown() -> Verdict {
    Verdict::Never("the peer does not know the message".to_owned())
}

#[test]
fn letters_of_a_channel_name_their_forerunner_and_rest_together() {
    let mut outbox = Box::of(DeliverySettings::default());
    assert_eq!(outbox.tell(0, "a"), "taken 1; send 1");
    assert_eq!(outbox.tell(0, "a"), "taken 1; send 2 after 1");
    assert_eq!(outbox.tell(0, "b"), "taken 1; send 3", "another actor's do not wait");
    assert_eq!(outbox.hear(10, 1, Verdict::Busy(None)), "", "the channel rests");
    assert_eq!(outbox.hear(10, 2, Verdict::Order), "");
    assert_eq!(outbox.tell(20, "a"), "taken 1");
    assert_eq!(outbox.hear(20, 3, Verdict::Settled), "");
    assert_eq!(outbox.tick(110), "send 1; send 2 after 1; send 4 after 2");
    assert_eq!(outbox.hear(120, 1, Verdict::Settled), "");
    assert_eq!(outbox.hear(120, 1, Verdict::Settled), "", "twice is once");
    assert_eq!(outbox.0.report().settled, 2);
}

#[test]
fn a_node_that_is_not_reached_rests_longer_each_time_and_no_longer_once_it_is() {
    let mut outbox = Box::of(DeliverySettings::default());
    outbox.tell(0, "a");
    outbox.tell(0, "b");
    assert_eq!(outbox.hear(0, 1, Verdict::Unreachable), "");
    assert_eq!(outbox.hear(0, 2, Verdict::Unreachable), "", "one failure");
    assert_eq!(outbox.tick(99), "");
    assert_eq!(outbox.tick(100), "send 1; send 2");
    assert_eq!(outbox.hear(100, 1, Verdict::Unreachable), "");
    assert_eq!((outbox.tick(299), outbox.tick(300)), (String::new(), "send 1".to_owned()));
    outbox.hear(300, 1, Verdict::Unreachable);
    let mut out = Out::default();
    outbox.0.reached(at(301), &node(), &mut out);
    assert_eq!(words(effects(&mut out)), "send 1");
}

#[test]
fn what_is_refused_for_good_or_panics_too_often_or_is_too_old_is_a_dead_letter() {
    let mut outbox = Box::of(DeliverySettings { attempts: 2, ..DeliverySettings::default() });
    outbox.tell(0, "a");
    assert_eq!(outbox.hear(0, 1, unknown()), "1 died: the peer does not know the message");
    outbox.tell(0, "a");
    let failed = || Verdict::Failed("it panicked".to_owned());
    assert_eq!(outbox.hear(0, 2, failed()), "");
    assert_eq!(outbox.tick(100), "send 2");
    assert_eq!(outbox.hear(100, 2, failed()), "2 died: its handler failed 2 times: it panicked");
    outbox.tell(0, "a");
    let week = DeliverySettings::default().letters_kept.as_millis() as u64;
    assert_eq!(outbox.tick(week - 1), "");
    assert!(outbox.tick(week).starts_with("3 died: it is older than delivery.letters_kept"));
    assert_eq!(outbox.hear(week, 3, Verdict::Settled), "", "too late");
    assert_eq!(outbox.0.report().dead, (3, 3 * letter("a", 0).bytes()));
}

#[test]
fn a_dead_letter_is_sent_again_as_a_new_one_or_dropped() {
    let mut outbox = Box::of(DeliverySettings::default());
    outbox.tell(0, "a");
    outbox.hear(0, 1, unknown());
    outbox.tell(0, "a");
    outbox.hear(0, 2, unknown());
    let mut out = Out::default();
    outbox.0.retry(at(10), Token(9), id(1), &mut out);
    assert_eq!(words(effects(&mut out)), "taken 9; send 3");
    outbox.0.drop_dead(Token(10), id(2), &mut out);
    outbox.0.drop_dead(Token(11), id(2), &mut out);
    assert_eq!(
        words(effects(&mut out)),
        "taken 10; 11 gets the handler failed: there is no dead letter 5-2 here: see `rhumb dead-letters list` (outcome: not sent)"
    );
    assert_eq!(outbox.0.report().dead, (0, 0));
}

#[test]
fn a_full_queue_of_dead_letters_holds_the_channel_and_nothing_is_lost() {
    let mut outbox = Box::of(DeliverySettings { dead: 1, ..DeliverySettings::default() });
    outbox.tell(0, "a");
    outbox.hear(0, 1, unknown());
    outbox.tell(0, "a");
    assert_eq!(outbox.hear(0, 2, unknown()), "no room for 2");
    assert_eq!(outbox.tell(1, "b"), "taken 1; send 3", "other channels go on");
    let mut out = Out::default();
    outbox.0.drop_dead(Token(9), id(1), &mut out);
    effects(&mut out);
    assert_eq!(outbox.tick(10_000), "send 2");
    assert!(outbox.hear(10_000, 2, unknown()).starts_with("2 died"));
}

#[test]
fn what_is_too_old_where_dead_letters_are_full_is_said_once_a_rest() {
    let mut outbox = Box::of(DeliverySettings { dead: 1, ..DeliverySettings::default() });
    outbox.tell(0, "a");
    outbox.hear(0, 1, unknown());
    outbox.tell(0, "a");
    outbox.tell(0, "b");
    let week = DeliverySettings::default().letters_kept.as_millis() as u64;
    let mut said = |from: u64, to: u64| -> Vec<(u64, String)> {
        let ticks = (from..to).step_by(100).map(|ms| (ms, outbox.tick(week + ms)));
        ticks.filter(|(_, said)| said.contains("no room")).collect()
    };
    let told: Vec<u64> = said(0, 30_000).into_iter().map(|(ms, _)| ms).collect();
    assert_eq!(told, [0, 10_000, 20_000], "as long as the channel rests");
    assert_eq!(outbox.0.next_deadline(at(week + 29_900)), Some(Mono::millis(week + 30_000)));
    let mut out = Out::default();
    outbox.0.drop_dead(Token(9), id(1), &mut out);
    effects(&mut out);
    assert!(outbox.tick(week + 29_950).starts_with("2 died"), "there is room: at once");
}

#[test]
fn an_outbox_that_is_full_refuses_in_a_word() {
    let mut outbox = Box::of(DeliverySettings { letters: 1, ..DeliverySettings::default() });
    outbox.tell(0, "a");
    assert_eq!(outbox.tell(0, "b"), "1 gets the outbox for eu/n1 is full (outcome: not sent)");
    assert_eq!(outbox.0.report().refused, 1);
    let small = DeliverySettings { letter_bytes: 200, ..DeliverySettings::default() };
    let mut outbox = Box::of(small);
    outbox.tell(0, "a");
    assert!(outbox.tell(0, "b").contains("is full"));
}

#[test]
fn a_channel_has_a_window_and_so_has_a_node() {
    let mut outbox = Box::of(DeliverySettings::default());
    let sent = |told: String| told.contains("send");
    assert_eq!((0..20).filter(|_| sent(outbox.tell(0, "a"))).count(), 8);
    assert_eq!((0..200).filter(|key| sent(outbox.tell(0, &format!("b{key}")))).count(), 120);
    assert_eq!(outbox.hear(1, 1, Verdict::Settled).matches("send").count(), 1);
}

#[test]
fn channels_that_are_kept_full_are_all_served() {
    const CHANNELS: usize = 20;
    let mut outbox = Box::of(DeliverySettings::default());
    let mut under_way: VecDeque<u64> = VecDeque::new();
    // Which channel a letter is of.
    let mut of: Vec<usize> = Vec::new();
    let mut sent = [0; CHANNELS];
    let mut heard = |told: &str, of: &[usize], under_way: &mut VecDeque<u64>| {
        let sends = told.split("; ").filter_map(|word| word.strip_prefix("send "));
        for send in sends {
            let sequence: u64 = send.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
            sent[of[sequence as usize - 1]] += 1;
            under_way.push_back(sequence);
        }
    };
    for nth in 0..CHANNELS * 10 {
        of.push(nth / 10);
        heard(&outbox.tell(0, &format!("c{:02}", nth / 10)), &of, &mut under_way);
    }
    for _ in 0..CHANNELS * 20 {
        let settled = under_way.pop_front().expect("as many as may be are under way");
        heard(&outbox.hear(1, settled, Verdict::Settled), &of, &mut under_way);
        // What was settled is followed by another of its channel.
        let channel = of[settled as usize - 1];
        of.push(channel);
        heard(&outbox.tell(1, &format!("c{channel:02}")), &of, &mut under_way);
    }
    let (least, most) = (*sent.iter().min().expect("some"), *sent.iter().max().expect("some"));
    assert!(least * 2 >= most, "each has its turn: {sent:?}");
}

#[test]
fn letters_of_a_handler_are_in_its_batch_and_make_the_outbox_full_for_the_next() {
    let settings = DeliverySettings { letters: 2, ..DeliverySettings::default() };
    let mut outbox = Outbox::recover(settings, Incarnation(5), [], []);
    let (mut batch, mut out) = (Batch::new(), Out::default());
    outbox.enclose(vec![letter("a", 0), letter("a", 0)], &mut batch);
    assert!(!batch.is_empty() && out.is_empty(), "they wait for the batch");
    out.persist(batch);
    outbox.begin(at(0), &mut out);
    assert_eq!(words(effects(&mut out)), "send 1; send 2 after 1");
    assert_eq!(outbox.full().collect::<Vec<_>>(), [&node()]);
}

#[test]
fn those_behind_a_letter_that_fails_do_not_shorten_its_rest() {
    let mut outbox = Box::of(DeliverySettings::default());
    outbox.tell(0, "a");
    outbox.tell(0, "a");
    let busy = Verdict::Busy(Some(Duration::from_secs(30)));
    assert_eq!(outbox.hear(10, 1, busy), "");
    assert_eq!(outbox.hear(10, 2, Verdict::Order), "");
    assert_eq!((outbox.tick(110), outbox.tick(30_009)), (String::new(), String::new()));
    assert_eq!(outbox.tick(30_010), "send 1; send 2 after 1");
}

#[test]
fn a_letter_that_is_stuck_is_let_in_however_many_notes_there_are_and_its_end_makes_room() {
    let mut inbox = Inbox::default();
    for sequence in 2..2 + MAX_NOTES as u64 {
        inbox.recover_settled(node(), id(sequence));
    }
    let newest = 2 + MAX_NOTES as u64;
    let mut arrives = |sequence: u64, floor: u64| {
        let mut out = Out::default();
        let arrived = Arrived { source: node(), id: id(sequence), floor: id(floor), after: None };
        inbox.arrived(Token(sequence), arrived, &mut out);
        words(effects(&mut out))
    };
    assert!(arrives(newest, 1).contains("Busy"), "there is no room for one more note");
    assert!(arrives(1, 1).starts_with("Deliver"), "but for the one that keeps them all");
    // It was given up where it came from.
    assert!(arrives(newest, newest).starts_with("Deliver"));
    assert_eq!(inbox.notes(), MAX_NOTES - 256, "some are forgotten at once, the others bit by bit");
}
