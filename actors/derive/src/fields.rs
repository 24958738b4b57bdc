//! The fields of a struct that grows: those of the first version, and those that came later.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Attribute, Error, Field, Fields, Ident, Item, ItemStruct, LitInt, LitStr, Path, Result, Type};

use crate::args::{list, set};

/// A field whose place in the layout is known.
pub(crate) struct Placed {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    /// What stands for the layout of a type that has none.
    pub(crate) opaque: Option<LitStr>,
}

impl Placed {
    /// Its name on the wire: a raw identifier's is without the `r#`.
    pub(crate) fn text(&self) -> String {
        text(&self.name)
    }

    /// The expression of its type's layout.
    pub(crate) fn layout(&self) -> TokenStream {
        layout(&self.ty, self.opaque.as_ref())
    }
}

/// The name of a field or variant as it stands in a layout.
pub(crate) fn text(name: &Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").unwrap_or(&name).to_owned()
}

/// The expression of a type's layout.
pub(crate) fn layout(ty: &Type, opaque: Option<&LitStr>) -> TokenStream {
    match opaque {
        Some(text) => quote!(__rhumb::core::wire::opaque(#text)),
        None => quote!(<#ty as __rhumb::core::wire::Wire>::LAYOUT),
    }
}

/// Since when something exists, and whether it may be dropped.
#[derive(Clone, Copy)]
pub(crate) struct Since {
    pub(crate) version: u16,
    pub(crate) may_drop: bool,
}

/// The fields of a growing struct.
#[derive(Default)]
pub(crate) struct Grown {
    pub(crate) base: Vec<Placed>,
    pub(crate) later: Vec<(Placed, Since)>,
}

impl Grown {
    /// The version that its newest field brought.
    pub(crate) fn version(&self) -> u16 {
        self.later.last().map_or(1, |(_, since)| since.version)
    }

    /// A field by name.
    ///
    /// # Errors
    /// Names those that there are, at the name that was given.
    pub(crate) fn field<'a>(&self, of: &Ident, name: &'a Ident) -> Result<&'a Ident> {
        let all = || self.base.iter().chain(self.later.iter().map(|(field, _)| field));
        if all().any(|field| field.name == *name) {
            return Ok(name);
        }
        let names: Vec<String> = all().map(Placed::text).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Err(Error::new(name.span(), format!("`{of}` has no field `{name}`; it has {}", list(&names))))
    }
}

/// Reads a struct that is to grow, and takes our attributes off it.
///
/// # Errors
/// At whatever cannot be part of one; `of` is the macro that says so.
pub(crate) fn grown(of: &str, item: TokenStream) -> Result<(ItemStruct, Grown)> {
    let mut item = structure(of, item)?;
    refuse_derives(of, &item.attrs)?;
    refuse_serde(of, &item.attrs)?;
    let mut grown = Grown::default();
    for field in &mut item.fields {
        refuse_serde(of, &field.attrs)?;
        let (since, opaque) = (since(&field.attrs)?, opaque(&field.attrs)?);
        field.attrs.retain(|attr| !ours(attr));
        let Some(name) = field.ident.clone() else { continue };
        let placed = Placed { name, ty: field.ty.clone(), opaque };
        match since {
            Some(since) => grown.later(placed, since, field)?,
            None if grown.later.is_empty() => grown.base.push(placed),
            None => {
                let how = format!(
                    "`{}` is of the first version and stands behind fields that came later: put it before them, or say which version brought it, e.g. `#[since({})]`",
                    placed.name,
                    grown.version()
                );
                return Err(Error::new(placed.name.span(), how));
            }
        }
    }
    Ok((item, grown))
}

impl Grown {
    fn later(&mut self, placed: Placed, since: Since, field: &Field) -> Result<()> {
        let newest = self.version();
        if since.version < newest {
            let how = format!(
                "`{}` came with version {} and stands behind a field of version {newest}: later fields stand in the order in which they came, and never move",
                placed.name, since.version
            );
            return Err(Error::new_spanned(field, how));
        }
        self.later.push((placed, since));
        Ok(())
    }
}

/// The item as a struct with named fields, or none.
fn structure(of: &str, item: TokenStream) -> Result<ItemStruct> {
    let item = match syn::parse2::<Item>(item)? {
        Item::Struct(item) => item,
        Item::Enum(item) => {
            let how = format!(
                "an enum cannot grow in its fields: give `#[derive(Wire)]` to the enum `{}`, and {of} to a struct that has it in a field",
                item.ident
            );
            return Err(Error::new(item.ident.span(), how));
        }
        other => return Err(Error::new_spanned(other, format!("{of} stands on a struct"))),
    };
    if let Fields::Unnamed(fields) = &item.fields {
        let how = format!("{of} needs a struct with named fields: the names are part of the layout");
        return Err(Error::new_spanned(fields, how));
    }
    if !item.generics.params.is_empty() {
        let how = format!("{of} stands on a struct without parameters: one name is one layout");
        return Err(Error::new_spanned(&item.generics, how));
    }
    Ok(item)
}

/// Refuses derives of what the macro writes itself.
fn refuse_derives(of: &str, attrs: &[Attribute]) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
        attr.parse_nested_meta(|meta| {
            let last = meta.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
            if ["Serialize", "Deserialize", "Wire", "Message", "Remote"].contains(&last.as_str()) {
                return Err(meta.error(format!("{of} writes `{last}` itself: leave it out of the derive")));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Refuses what would say how something is laid out, or whether it is there at all.
fn refuse_serde(of: &str, attrs: &[Attribute]) -> Result<()> {
    for attr in attrs {
        let path = attr.path();
        if path.is_ident("serde") {
            return Err(Error::new_spanned(
                attr,
                format!("{of} lays the struct out itself: serde's attributes have no place in it"),
            ));
        }
        if path.is_ident("cfg") || path.is_ident("cfg_attr") {
            return Err(Error::new_spanned(attr, "a layout is the same in every build: no `cfg` in it"));
        }
    }
    Ok(())
}

fn ours(attr: &Attribute) -> bool {
    attr.path().is_ident("since") || attr.path().is_ident("wire")
}

/// The `#[since(2)]` or `#[since(2, may_drop)]` among attributes.
pub(crate) fn since(attrs: &[Attribute]) -> Result<Option<Since>> {
    let mut found = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("since")) {
        let since = attr.parse_args_with(|input: syn::parse::ParseStream<'_>| {
            let version: LitInt = input.parse().map_err(|_| Error::new(input.span(), SINCE))?;
            let may_drop = match input.parse::<Option<syn::Token![,]>>()? {
                None => false,
                Some(_) => {
                    let word: Ident = input.parse().map_err(|_| Error::new(input.span(), SINCE))?;
                    if word != "may_drop" {
                        return Err(Error::new(word.span(), SINCE));
                    }
                    true
                }
            };
            match version.base10_parse() {
                Ok(number @ 2..) => Ok(Since { version: number, may_drop }),
                _ => Err(Error::new(version.span(), SINCE)),
            }
        });
        let since = since.map_err(|error| {
            // A bare `#[since]` has no span but its own.
            if matches!(attr.meta, syn::Meta::List(_)) { error } else { Error::new_spanned(attr, SINCE) }
        })?;
        if found.replace(since).is_some() {
            return Err(Error::new_spanned(attr, "`since` is given twice"));
        }
    }
    Ok(found)
}

const SINCE: &str = "say which version brought it, from 2 (what the first version has needs no `since`): `#[since(2)]`, or `#[since(2, may_drop)]` if a build without it may go on as if it were not there";

/// The `#[wire(opaque = "…")]` among attributes.
pub(crate) fn opaque(attrs: &[Attribute]) -> Result<Option<LitStr>> {
    Ok(wire(attrs, false)?.0)
}

/// What `#[wire(..)]` says: `opaque`, and on a type `crate`.
pub(crate) fn wire(attrs: &[Attribute], on_type: bool) -> Result<(Option<LitStr>, Option<Path>)> {
    let (mut opaque, mut krate) = (None, None);
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("wire")) {
        attr.parse_nested_meta(|meta: ParseNestedMeta<'_>| {
            let word = meta.path.get_ident().cloned().unwrap_or_else(|| format_ident!("_"));
            if meta.path.is_ident("opaque") {
                let text: LitStr = meta.value()?.parse()?;
                if text.value().is_empty() {
                    return Err(Error::new(text.span(), "the text stands for the layout, e.g. \"uuid-v1\""));
                }
                set(&mut opaque, &word, text)
            } else if on_type && meta.path.is_ident("crate") {
                set(&mut krate, &word, meta.value()?.call(Path::parse_mod_style)?)
            } else {
                let known: &[&str] = if on_type { &["opaque", "crate"] } else { &["opaque"] };
                let word = quote!(#word).to_string();
                Err(meta.error(format!("#[wire] has no `{word}` here; it knows {}", list(known))))
            }
        })?;
    }
    Ok((opaque, krate))
}

/// The item without our attributes on its fields.
pub(crate) fn bare(item: TokenStream) -> TokenStream {
    let strip =
        |fields: &mut Fields| fields.iter_mut().for_each(|field| field.attrs.retain(|attr| !ours(attr)));
    match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Struct(mut item)) => {
            strip(&mut item.fields);
            quote!(#item)
        }
        Ok(Item::Enum(mut item)) => {
            for variant in &mut item.variants {
                variant.attrs.retain(|attr| !ours(attr));
                strip(&mut variant.fields);
            }
            quote!(#item)
        }
        _ => item,
    }
}

/// Nothing may stand in the brackets but `crate`.
pub(crate) fn only_crate(of: &str, args: TokenStream) -> Result<Option<Path>> {
    let mut krate = None;
    let parser = |input: syn::parse::ParseStream<'_>| {
        crate::args::each(input, |key, input| {
            if key == "crate" {
                let path = crate::args::path(input, &key)?;
                set(&mut krate, &key, path)
            } else {
                Err(crate::args::unknown(of, &key, &["crate"]))
            }
        })
    };
    parser.parse2(args)?;
    Ok(krate)
}
