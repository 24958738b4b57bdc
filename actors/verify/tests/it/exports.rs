//! Logs as static files, whole and pruned: what is accepted, what others' code says of the same files, and that whatever is
//! changed is refused.

use std::collections::BTreeMap;

use rhumb_verify::Policy;
use rhumb_verify::export::{CHECKPOINT, Export, Kept, MARK, NoExport};
use rhumb_verify::hash::{self, Hash};
use rhumb_verify::tile::{WIDTH, of_level};
use tlog_tiles::tile::{Tile, TileHashReader, TileReader};
use tlog_tiles::tlog;

use crate::{checkpoint, log};

type Files = BTreeMap<String, Vec<u8>>;

fn entries(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_string().into_bytes()).collect()
}

/// The hashes before the mark in the tiles in which it lies, made of all leaves.
fn left(leaves: &[Hash], mark: u64) -> Vec<Vec<Hash>> {
    let hash = |level: u8, number: u64| {
        let span = 1_usize << (8 * u32::from(level));
        hash::root(&leaves[number as usize * span..(number as usize + 1) * span])
    };
    let of = |level: u8| {
        let end = of_level(level, mark);
        (end / WIDTH * WIDTH..end).map(|number| hash(level, number)).collect()
    };
    (0..8).take_while(|level| of_level(*level, mark) > 0).map(of).collect()
}

/// The files of a log of so many entries that begins with one.
fn files(size: u64, mark: u64) -> Files {
    let all = entries(size);
    let leaves: Vec<_> = all.iter().map(|entry| hash::leaf(entry)).collect();
    let kept = Kept::of(mark, &left(&leaves, mark), &all[mark as usize..]).expect("a log");
    assert_eq!(kept.root(), hash::root(&leaves), "{size} from {mark}");
    let mut files: Files = kept.files(&all[mark as usize..]).collect();
    files.insert(CHECKPOINT.to_owned(), checkpoint(&leaves, &[], &[]).to_string().into_bytes());
    files
}

fn read(files: &Files) -> Result<Export, NoExport> {
    let policy = Policy::parse(&format!("log {}\nquorum none\n", log().key())).expect("a policy");
    Export::read(&policy, |path| Ok::<_, String>(files.get(path).cloned()))
}

#[test]
fn a_log_is_read_from_wherever_it_begins() {
    for (size, marks) in [
        (0, vec![0]),
        (1, vec![0]),
        (256, vec![0, 256]),
        (700, vec![0, 256, 512]),
        (66_100, vec![0, 65_280, 65_536, 65_792, 66_048]),
    ] {
        for mark in marks {
            let export = read(&files(size, mark)).unwrap_or_else(|why| panic!("{size} from {mark}: {why}"));
            assert_eq!((export.kept.mark(), export.kept.size()), (mark, size));
            assert_eq!(export.entries, entries(size)[mark as usize..]);
            let entry = |index: u64| export.entry(index).map(<[u8]>::to_vec);
            assert_eq!(entry(mark), (mark < size).then(|| mark.to_string().into_bytes()));
            assert!(mark == 0 || entry(mark - 1).is_none());
            assert_eq!(export.begins_by(mark), Ok(()));
            if let Some(needed) = mark.checked_sub(1) {
                assert_eq!(export.begins_by(needed), Err(NoExport::Begins { mark, needed }));
            }
        }
    }
}

#[test]
fn whatever_is_changed_or_missing_is_refused() {
    for (size, mark) in [(700, 0), (700, 256), (700, 512)] {
        let sound = files(size, mark);
        for (path, bytes) in &sound {
            let mut fewer = sound.clone();
            fewer.remove(path);
            assert!(read(&fewer).is_err(), "{path} is missing");
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 40).chain([bytes.len() - 1]) {
                let mut changed = sound.clone();
                changed.get_mut(path).expect("there")[at] ^= 1;
                assert!(read(&changed).is_err(), "byte {at} of {path} from {mark}");
            }
        }
        for mark in ["0\n", "100\n", "768\n", "256", "0256\n", "-256\n", ""] {
            let mut changed = sound.clone();
            changed.insert(MARK.to_owned(), mark.as_bytes().to_vec());
            let whole = mark == "0\n" && !sound.contains_key(MARK);
            assert_eq!(read(&changed).is_ok(), whole, "{mark:?}");
        }
    }
    let hidden = files(700, 256).into_iter().chain(files(700, 512)).collect();
    let export = read(&hidden).expect("with fewer of its entries it is still that log");
    assert_eq!(export.begins_by(256), Err(NoExport::Begins { mark: 512, needed: 256 }));
}

#[test]
fn hashes_that_do_not_fit_the_mark_make_no_log() {
    let all = entries(700);
    let leaves: Vec<_> = all.iter().map(|entry| hash::leaf(entry)).collect();
    let two = left(&leaves, 512);
    assert!(Kept::of(512, &two, &all[512..]).is_some());
    assert!(Kept::of(256, &two, &all[256..]).is_none(), "one bundle has one hash");
    assert!(Kept::of(100, &[leaves[..100].to_vec()], &all[100..]).is_none(), "no mark lies within a bundle");
    assert!(Kept::of(0, &[vec![], vec![leaves[0]]], &all).is_none(), "a whole log has nothing before it");
    assert!(Kept::of(512, &[two.clone(), vec![vec![leaves[0]]]].concat(), &all[512..]).is_none());
    let kept = Kept::of(512, &two, &all[512..]).expect("a log");
    assert_eq!(kept.root_of(512), Some(hash::root(&leaves[..512])));
    assert_eq!(kept.root_of(600), Some(hash::root(&leaves[..600])));
    assert_eq!((kept.root_of(511), kept.root_of(701)), (None, None));
}

/// Files, as `tlog_tiles` reads them: its paths name the tile's height, which c2sp.org/tlog-tiles leaves out.
struct Theirs<'a>(&'a Files);

impl TileReader for Theirs<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let path = |tile: &Tile| tile.path().replacen("tile/8/", "tile/", 1);
        tiles.iter().map(|tile| self.0.get(&path(tile)).cloned().ok_or(tlog::Error::InvalidTile)).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn tlog_tiles_proves_all_that_is_kept_from_the_files_of_a_pruned_log_and_that_it_only_grew() {
    let (size, mark) = (66_100, 65_792);
    let files = files(size, mark);
    let export = read(&files).expect("a pruned log");
    let root = tlog::Hash(export.kept.root().0);
    let theirs = Theirs(&files);
    let reader = TileHashReader::new(size, root, &theirs);
    for index in mark..size {
        let leaf = tlog::record_hash(export.entry(index).expect("kept"));
        let proof = tlog::prove_record(size, index, &reader).expect("its tiles are there");
        tlog::check_record(&proof, size, root, index, leaf).expect("it is one of them");
    }
    for old in [mark, mark + 1, 66_000, size] {
        let before = tlog::Hash(export.kept.root_of(old).expect("kept").0);
        let proof = tlog::prove_tree(size, old, &reader).expect("its tiles are there");
        tlog::check_tree(&proof, size, root, old, before).expect("it only grew");
    }
    assert!(tlog::prove_record(size, 0, &reader).is_err(), "what was pruned is proved no more");
}
