//! Reading what stands in an attribute's brackets: `key = value`, flags, and what is said when a key is
//! unknown, given twice, or has the wrong kind of value.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitInt, LitStr, Path, Result, Token, Type, parenthesized};

use crate::rules;

/// Reads `key ..., key ...`, handing each key to `one`, which reads the rest up to the comma.
pub(crate) fn each(
    input: ParseStream<'_>,
    mut one: impl FnMut(Ident, ParseStream<'_>) -> Result<()>,
) -> Result<()> {
    while !input.is_empty() {
        let key = input.call(Ident::parse_any)?;
        one(key, input)?;
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    Ok(())
}

/// The error for a key that the macro does not have.
pub(crate) fn unknown(of: &str, key: &Ident, known: &[&str]) -> Error {
    Error::new(key.span(), format!("{of} has no `{key}`; it knows {}", list(known)))
}

/// Keeps a value, once.
pub(crate) fn set<T>(place: &mut Option<T>, key: &Ident, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(key.span(), format!("`{key}` is given twice"))),
    }
}

/// The `= ` of a key, or how it would be right.
fn equals(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<()> {
    if !input.peek(Token![=]) {
        return Err(Error::new(key.span(), format!("`{key}` needs a value, e.g. `{example}`")));
    }
    input.parse::<Token![=]>()?;
    Ok(())
}

fn needs(input: ParseStream<'_>, key: &Ident, example: &str) -> Error {
    Error::new(input.span(), format!("this is no value of `{key}`; e.g. `{example}`"))
}

/// `key = "text"`.
pub(crate) fn text(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<LitStr> {
    equals(input, key, example)?;
    input.parse().map_err(|_| needs(input, key, example))
}

/// `key = 1024`.
pub(crate) fn number(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<LitInt> {
    equals(input, key, example)?;
    input.parse().map_err(|_| needs(input, key, example))
}

/// `key = Type`.
pub(crate) fn ty(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<Type> {
    equals(input, key, example)?;
    input.parse().map_err(|_| needs(input, key, example))
}

/// `key = field`.
pub(crate) fn field(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<Ident> {
    equals(input, key, example)?;
    input.parse().map_err(|_| needs(input, key, example))
}

/// `crate = path`.
pub(crate) fn path(input: ParseStream<'_>, key: &Ident) -> Result<Path> {
    let example = "crate = rhumb";
    equals(input, key, example)?;
    input.call(Path::parse_mod_style).map_err(|_| needs(input, key, example))
}

/// `key(A, B)`.
pub(crate) fn types(input: ParseStream<'_>, key: &Ident, example: &str) -> Result<Vec<Type>> {
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(key.span(), format!("`{key}` is a list: `{example}`")));
    }
    let inner;
    parenthesized!(inner in input);
    let types = Punctuated::<Type, Token![,]>::parse_terminated(&inner)?;
    distinct(types.into_iter().collect())
}

/// Refuses a type that is listed twice.
pub(crate) fn distinct(types: Vec<Type>) -> Result<Vec<Type>> {
    let mut seen = Vec::new();
    for ty in &types {
        let text = quote!(#ty).to_string();
        if seen.contains(&text) {
            return Err(Error::new_spanned(ty, format!("`{text}` is listed twice")));
        }
        seen.push(text);
    }
    Ok(types)
}

/// Which class data is of, as it is declared.
pub(crate) enum Class {
    /// Always this one.
    Is(LitStr),
    /// This field says it.
    By(Ident),
    /// The receiver knows.
    LookedUp,
}

/// `key = "class"`, `key = by(field)` or `key = looked_up`.
pub(crate) fn class(input: ParseStream<'_>, key: &Ident) -> Result<Class> {
    equals(input, key, "class = \"inventory\"")?;
    if input.peek(LitStr) {
        return rules::class(input.parse()?).map(Class::Is);
    }
    let wrong = |span: Span| {
        let how = format!(
            "`{key}` is a class (`{key} = \"inventory\"`), a field of type DataClass that says it (`{key} = by(FIELD)`), or `{key} = looked_up` where the receiver knows it"
        );
        Error::new(span, how)
    };
    let word: Ident = input.parse().map_err(|error| wrong(error.span()))?;
    if word == "looked_up" {
        return Ok(Class::LookedUp);
    }
    if word != "by" || !input.peek(syn::token::Paren) {
        return Err(wrong(word.span()));
    }
    let inner;
    parenthesized!(inner in input);
    let field: Ident = inner.parse().map_err(|error| wrong(error.span()))?;
    if inner.is_empty() { Ok(Class::By(field)) } else { Err(wrong(inner.span())) }
}

/// One error for all that is missing, with an example of how it would be right.
pub(crate) fn missing(of: &str, names: &[&str], example: &str) -> Error {
    let verb = format!("{of} lacks {}: e.g. `{example}`", list(names));
    Error::new(Span::call_site(), verb)
}

/// The place of what the user wrote, for code that is ours: an error is shown there, and names mean what
/// they mean here, also when the place is another macro's.
pub(crate) fn at(place: Span) -> Span {
    Span::call_site().located_at(place)
}

/// Brings what generated code names into scope.
pub(crate) fn scope(krate: Option<&Path>) -> TokenStream {
    match krate {
        Some(path) => quote!(use #path::__private as __rhumb;),
        None => quote!(
            use ::rhumb::__private as __rhumb;
        ),
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
