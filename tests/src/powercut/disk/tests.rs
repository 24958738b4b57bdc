use std::collections::BTreeSet;

use rhumb_core::rng::Seed;

use super::*;

const ROOT: u64 = 1;

/// A disk on which `a` holds `old`, and what happens to it, told as a story:
/// `create b`, `write a 1 XY`, `size a 1`, `sync a`, `fail a`, `sync /`, `rename b a`, `remove a`.
fn after(story: &str) -> Disk {
    let a = Found { inode: 2, what: FoundNode::File(b"old".to_vec()) };
    let mut disk =
        Disk::of(Found { inode: ROOT, what: FoundNode::Directory(BTreeMap::from([("a".to_owned(), a)])) });
    let inode = |name: &str| match name {
        "/" => ROOT,
        name => u64::from(name.as_bytes()[0] - b'a') + 2,
    };
    for (token, line) in story.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let token = token as u64;
        let words: Vec<&str> = line.split(' ').collect();
        let name = words[1].to_owned();
        let events = match words[..] {
            ["create", name] => vec![Event::Created {
                inode: inode(name),
                directory: ROOT,
                name: name.to_owned(),
                is_directory: false,
            }],
            ["write", name, offset, bytes] => vec![Event::Wrote {
                inode: inode(name),
                offset: offset.parse().expect("a number"),
                bytes: bytes.as_bytes().to_vec(),
            }],
            ["size", name, length] => {
                vec![Event::Sized { inode: inode(name), length: length.parse().expect("a number") }]
            }
            ["sync", name] => {
                vec![Event::SyncBegan { inode: inode(name), token }, Event::Synced { token }]
            }
            ["fail", name] => {
                vec![Event::SyncBegan { inode: inode(name), token }, Event::SyncFailed { token }]
            }
            ["begin", name] => vec![Event::SyncBegan { inode: inode(name), token: 1_000 }],
            ["end", _] => vec![Event::Synced { token: 1_000 }],
            ["rename", from, to] => {
                vec![Event::Renamed { from: (ROOT, from.to_owned()), to: (ROOT, to.to_owned()) }]
            }
            ["remove", _] => vec![Event::Removed { directory: ROOT, name }],
            _ => panic!("no story: {line}"),
        };
        events.into_iter().for_each(|event| disk.happens(event).expect("it can happen"));
    }
    disk
}

fn shown(image: &Image) -> String {
    let file = |(name, node): (&String, &Node)| match node {
        Node::File(bytes) => format!("{name}={}", bytes.escape_ascii()),
        Node::Link(to) => format!("{name}->{to}"),
        Node::Directory(_) => format!("{name}/"),
    };
    image.0.iter().map(file).collect::<Vec<_>>().join(" ")
}

/// What the hardest disk keeps.
fn kept(story: &str) -> String {
    shown(&after(story).cut(&Loss::All))
}

/// Every state that some seed leaves.
fn states(story: &str) -> BTreeSet<String> {
    let disk = after(story);
    let cut = |seed| shown(&disk.cut(&Loss::Drawn(Seed::new(seed))));
    (0..500).map(cut).collect()
}

#[test]
fn what_a_process_did_not_sync_is_lost_in_the_life_of_the_next_one_too() {
    let mut disk = after("write a 0 new\nbegin a").lives_on();
    assert_eq!(shown(&disk.latest()), "a=new");
    assert_eq!(shown(&disk.cut(&Loss::All)), "a=old");
    // The sync of the one that ended came to no end, and the next one's have the same numbers.
    assert!(disk.happens(Event::Synced { token: 1_000 }).is_err());
    disk.happens(Event::SyncBegan { inode: 2, token: 1_000 }).expect("it can happen");
    disk.happens(Event::Synced { token: 1_000 }).expect("it can happen");
    assert_eq!(shown(&disk.cut(&Loss::All)), "a=new");
}

#[test]
fn what_was_not_synced_is_lost_on_the_hardest_disk() {
    assert_eq!(kept("write a 3 new"), "a=old");
    assert_eq!(kept("write a 0 N\nsize a 1"), "a=old");
    assert_eq!(kept("create b\nwrite b 0 new\nsync b"), "a=old", "its name was not synced");
    assert_eq!(kept("create b\nwrite b 0 new\nsync /"), "a=old b=", "its bytes were not");
    assert_eq!(kept("remove a"), "a=old");
}

#[test]
fn what_was_synced_is_in_every_state() {
    let story = "create b\nwrite b 0 new\nsync b\nsync /\nwrite b 3 er\nwrite a 0 O\nsync a";
    assert_eq!(kept(story), "a=Old b=new");
    for state in states(story) {
        assert!(state.starts_with("a=Old b=new"), "{state}");
    }
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    assert_eq!(kept("write a 3 1\nbegin a\nwrite a 4 2\nend a"), "a=old1");
    assert_eq!(kept("write a 3 1\nbegin a"), "a=old", "it was not done");
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let story = "create b\nwrite b 0 new\nsync b\nsync /\nrename b a";
    assert_eq!(states(story), BTreeSet::from(["a=old b=new".into(), "a=new".into()]));
    assert_eq!(kept(&format!("{story}\nsync /")), "a=new");
}

#[test]
fn appends_are_torn_at_any_byte_and_a_length_may_come_without_its_bytes() {
    let states = states("write a 3 new");
    for state in ["a=old", "a=oldn", "a=oldne", "a=oldnew", "a=old\\x00\\x00\\x00"] {
        assert!(states.contains(state), "{state} of {states:?}");
    }
}

#[test]
fn an_overwrite_is_partly_restored_and_a_later_write_may_outlive_an_earlier_one() {
    let states = states("write a 0 123\nwrite a 1 X");
    for state in ["a=old", "a=1ld", "a=123", "a=1X3", "a=oXd"] {
        assert!(states.contains(state), "{state} of {states:?}");
    }
}

#[test]
fn what_a_failed_sync_was_to_cover_is_lost_for_good() {
    assert_eq!(kept("write a 3 1\nfail a\nwrite a 4 2\nsync a"), "a=old\\x002");
}

#[test]
fn while_the_power_is_on_everything_is_there() {
    let disk = after("write a 3 1\ncreate b\nwrite b 1 X\nrename b c\nsize a 2");
    assert_eq!(shown(&disk.latest()), "a=ol c=\\x00X");
}

#[test]
fn a_journal_of_another_directory_is_refused() {
    let mut disk = after("write a 3 1");
    assert!(disk.happens(Event::Sized { inode: 99, length: 0 }).is_err());
    assert!(disk.happens(Event::Synced { token: 99 }).is_err());
}
