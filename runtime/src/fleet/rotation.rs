//! The order in which one authority takes over from another.
//!
//! * It decides: the next move of a stage, from how everything stands; and whether a stage may begin.
//! * It never does: remember how far it was. That is read anew before each move, so that a rotation which was
//!   interrupted anywhere goes on from there, and one that is done has no move left.
//! * Invariants: a certificate is only issued by an authority that the folder it goes to believes. An
//!   authority is only forgotten when no certificate of it is left in any folder but of those that are
//!   [passed over](Folder::is_passed_over): what was revoked is never issued anew by a rotation.

use std::fmt;

use serde::Serialize;

/// A stage of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A new authority is made, and both are believed everywhere.
    Prepare,
    /// Every certificate is issued anew, by the new one.
    Activate,
    /// The old one is believed no more, and its key is destroyed.
    Retire,
}

impl Stage {
    /// Its word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Retire => "retire",
        }
    }
}

/// How everything stands. Authorities are told by their names, of which no two are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// Who issues.
    pub present: String,
    /// Who is to take over.
    pub next: Option<String>,
    /// Who issued before.
    pub previous: Option<String>,
    /// Whom a new certificate's folder is told to believe.
    pub given_out: Vec<String>,
    /// Everybody's folder.
    pub folders: Vec<Folder>,
}

/// An identity folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Whose.
    pub holder: String,
    /// Who issued the certificate.
    pub issuer: String,
    /// Whom it believes.
    pub believes: Vec<String>,
    /// Whether the certificate that lies there was revoked.
    pub revoked: bool,
}

/// Why a certificate is believed no more: whose it is, is certified anew only where he is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Out {
    /// It was revoked.
    Revoked,
    /// None of the authorities of this mesh has issued it.
    Disbelieved,
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "revoked",
            Self::Disbelieved => "issued by an authority that is believed no more",
        })
    }
}

impl Folder {
    /// Why a rotation leaves it as it is, if it does.
    #[must_use]
    pub fn is_passed_over(&self, stand: &Stand) -> Option<Out> {
        let coming_and_going = [&stand.next, &stand.previous];
        let mut known = stand.given_out.iter().chain([&stand.present]);
        let is_known = known.any(|authority| *authority == self.issuer)
            || coming_and_going.into_iter().flatten().any(|authority| *authority == self.issuer);
        match (self.revoked, is_known) {
            (true, _) => Some(Out::Revoked),
            (false, false) => Some(Out::Disbelieved),
            (false, true) => None,
        }
    }
}

impl Stand {
    /// The first folder that is not passed over and of which this holds.
    fn first(&self, holds: impl Fn(&Folder) -> bool) -> Option<usize> {
        self.folders.iter().position(|folder| holds(folder) && folder.is_passed_over(self).is_none())
    }
}

/// One move. Each is done wholly or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Make the authority that is to take over.
    MakeNext,
    /// Give these out from now on, the first to be made first.
    GiveOut(Vec<String>),
    /// Tell the folder at this place what is given out.
    Believe(usize),
    /// Keep the present authority as the previous one too.
    KeepPrevious,
    /// The next one becomes the present one.
    Promote,
    /// The next one is the present one: it stands there no more.
    ForgetNext,
    /// Issue the certificate of the folder at this place anew.
    Certify(usize),
    /// Destroy the key of the previous one.
    ForgetPrevious,
}

/// Why a stage may not begin, or is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYet {
    /// Who is behind.
    pub who: String,
    /// In what.
    pub why: String,
}

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.why)
    }
}

/// The next move of a stage; none when it is done.
///
/// # Errors
/// The stage does not follow on how everything stands.
pub fn next_move(stage: Stage, stand: &Stand) -> Result<Option<Move>, String> {
    match stage {
        Stage::Prepare => prepare(stand),
        Stage::Activate => activate(stand),
        Stage::Retire => retire(stand),
    }
}

fn prepare(stand: &Stand) -> Result<Option<Move>, String> {
    if stand.previous.is_some() {
        return Err(
            "a rotation is under way and activated: finish it with --stage activate and --stage retire"
                .to_owned(),
        );
    }
    let Some(next) = &stand.next else { return Ok(Some(Move::MakeNext)) };
    Ok(told(stand, &[&stand.present, next]))
}

fn activate(stand: &Stand) -> Result<Option<Move>, String> {
    match (&stand.next, &stand.previous) {
        (None, None) => return Err("nothing is prepared: run --stage prepare first".to_owned()),
        (Some(next), None) => {
            let unprepared = told(stand, &[&stand.present, next]).is_some();
            if unprepared {
                return Err("prepare is not finished: run --stage prepare again".to_owned());
            }
            return Ok(Some(Move::KeepPrevious));
        }
        (Some(next), Some(_)) if *next != stand.present => return Ok(Some(Move::Promote)),
        (Some(_), Some(_)) => return Ok(Some(Move::ForgetNext)),
        (None, Some(_)) => {}
    }
    Ok(stand.first(|folder| folder.issuer != stand.present).map(Move::Certify))
}

fn retire(stand: &Stand) -> Result<Option<Move>, String> {
    if stand.next.is_some() {
        return Err("the new authority is not active: run --stage activate first".to_owned());
    }
    if stand.previous.is_none() {
        return Ok(None);
    }
    if let Some(behind) = stand.first(|folder| folder.issuer != stand.present) {
        let behind = &stand.folders[behind];
        return Err(format!(
            "{} still has a certificate of {}: run --stage activate again",
            behind.holder, behind.issuer
        ));
    }
    Ok(told(stand, &[&stand.present]).or(Some(Move::ForgetPrevious)))
}

/// What is left to be done until exactly these are believed everywhere.
fn told(stand: &Stand, authorities: &[&String]) -> Option<Move> {
    let these = |all: &Vec<String>| {
        all.len() == authorities.len() && authorities.iter().all(|authority| all.contains(authority))
    };
    if !these(&stand.given_out) {
        return Some(Move::GiveOut(authorities.iter().map(|authority| (*authority).clone()).collect()));
    }
    stand.first(|folder| !these(&folder.believes)).map(Move::Believe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founded() -> Stand {
        let folder = |holder: &str| Folder {
            holder: holder.into(),
            issuer: "old".into(),
            believes: vec!["old".into()],
            revoked: false,
        };
        Stand {
            present: "old".into(),
            next: None,
            previous: None,
            given_out: vec!["old".into()],
            folders: vec![folder("node us/n1"), folder("node eu/n1"), folder("client us/app")],
        }
    }

    /// What a move does to how everything stands; as the shell does it to files.
    fn moved(mut stand: Stand, made: &Move) -> Stand {
        match made {
            Move::MakeNext => stand.next = Some("new".into()),
            Move::GiveOut(authorities) => stand.given_out = authorities.clone(),
            Move::Believe(at) => {
                let issuer = &stand.folders[*at].issuer;
                assert!(stand.given_out.contains(issuer), "it would not believe its own certificate");
                stand.folders[*at].believes = stand.given_out.clone();
            }
            Move::KeepPrevious => stand.previous = Some(stand.present.clone()),
            Move::Promote => stand.present = stand.next.clone().expect("there is one"),
            Move::ForgetNext => stand.next = None,
            Move::Certify(at) => {
                let folder = &mut stand.folders[*at];
                assert!(folder.believes.contains(&stand.present), "it would not believe its new certificate");
                folder.issuer = stand.present.clone();
            }
            Move::ForgetPrevious => {
                let previous = stand.previous.take().expect("there is one");
                let left = |folder: &&Folder| folder.issuer == previous && !folder.revoked;
                assert_eq!(stand.folders.iter().find(left), None, "somebody is left behind");
            }
        }
        stand
    }

    fn run(stage: Stage, mut stand: Stand) -> (Stand, usize) {
        for moves in 0.. {
            match next_move(stage, &stand).expect("it follows") {
                Some(made) => stand = moved(stand, &made),
                None => return (stand, moves),
            }
            assert!(moves < 50, "it does not end: {stand:?}");
        }
        unreachable!("it ends")
    }

    #[test]
    fn three_stages_lead_from_one_authority_to_the_other() {
        let (prepared, moves) = run(Stage::Prepare, founded());
        assert_eq!((prepared.present.as_str(), moves), ("old", 5));
        assert!(prepared.folders.iter().all(|f| f.issuer == "old" && f.believes == ["old", "new"]));
        let (active, moves) = run(Stage::Activate, prepared);
        assert_eq!((active.present.as_str(), active.previous.as_deref(), moves), ("new", Some("old"), 6));
        assert!(active.folders.iter().all(|f| f.issuer == "new" && f.believes == ["old", "new"]));
        let (retired, moves) = run(Stage::Retire, active);
        assert_eq!((retired.previous.as_deref(), moves), (None, 5));
        assert!(retired.folders.iter().all(|f| f.issuer == "new" && f.believes == ["new"]));
        assert_eq!(retired.given_out, ["new"]);
    }

    #[test]
    fn a_stage_that_is_done_has_no_move_left() {
        let mut stand = founded();
        for stage in [Stage::Prepare, Stage::Activate, Stage::Retire] {
            stand = run(stage, stand).0;
            assert_eq!(next_move(stage, &stand), Ok(None), "{stage:?}");
        }
    }

    #[test]
    fn a_stage_does_not_begin_before_the_former_is_done() {
        let refused = |stage, stand: &Stand| next_move(stage, stand).expect_err("refused");
        assert!(refused(Stage::Activate, &founded()).contains("nothing is prepared"));
        // Interrupted at each move of prepare.
        let mut stand = founded();
        while let Some(made) = next_move(Stage::Prepare, &stand).expect("it follows") {
            assert!(next_move(Stage::Activate, &stand).is_err(), "{stand:?}");
            stand = moved(stand, &made);
        }
        assert!(refused(Stage::Retire, &stand).contains("not active"));
        // And of activate.
        while let Some(made) = next_move(Stage::Activate, &stand).expect("it follows") {
            assert!(next_move(Stage::Retire, &stand).is_err(), "{stand:?}");
            stand = moved(stand, &made);
        }
        assert!(refused(Stage::Prepare, &stand).contains("under way"));
        assert_eq!(next_move(Stage::Retire, &founded()), Ok(None), "nothing is to be retired");
    }

    #[test]
    fn somebody_who_was_added_meanwhile_is_taken_along() {
        let mut stand = run(Stage::Prepare, founded()).0;
        let late = Folder { holder: "client eu/late".into(), ..founded().folders[2].clone() };
        stand.folders.push(late);
        assert!(next_move(Stage::Activate, &stand).expect_err("it believes one only").contains("prepare"));
        stand = run(Stage::Activate, run(Stage::Prepare, stand).0).0;
        assert_eq!(stand.folders[3].issuer, "new");
    }

    #[test]
    fn whoever_was_revoked_is_passed_over_by_this_rotation_and_the_next_and_keeps_nobody_waiting() {
        let mut stand = founded();
        stand.folders[2].revoked = true;
        let app = stand.folders[2].clone();
        for (stage, moves) in [(Stage::Prepare, 4), (Stage::Activate, 5), (Stage::Retire, 4)] {
            let made;
            (stand, made) = run(stage, stand);
            assert_eq!(made, moves, "{stage:?}: one less than with it");
            assert_eq!(stand.folders[2], app, "{stage:?} leaves it as it is");
        }
        // Of somebody else's authority: nobody here believes it either.
        stand.folders[2].revoked = false;
        assert_eq!(stand.folders[2].is_passed_over(&stand), Some(Out::Disbelieved));
        assert_eq!(next_move(Stage::Retire, &stand), Ok(None));
        stand = run(Stage::Prepare, stand).0;
        assert_eq!(stand.folders[2].issuer, "old");
        assert!(stand.folders[..2].iter().all(|folder| folder.is_passed_over(&stand).is_none()));
    }

    #[test]
    fn whoever_comes_with_a_certificate_of_the_one_that_goes_is_not_passed_over() {
        let mut stand = run(Stage::Activate, run(Stage::Prepare, founded()).0).0;
        stand.given_out = vec!["new".into()];
        stand.folders.push(Folder { holder: "client eu/late".into(), ..founded().folders[2].clone() });
        let refused = next_move(Stage::Retire, &stand).expect_err("its key revokes it still");
        assert!(refused.contains("client eu/late still has a certificate of old"), "{refused}");
    }
}
