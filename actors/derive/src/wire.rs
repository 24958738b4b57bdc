//! `#[derive(Wire)]`: the layout of what serde's derives write.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, Generics, Ident, Meta, Result, Token, Variant};

use crate::args::{list, scope};
use crate::fields::{self, Since, layout, text};

/// What serde may be told without a change of what the codec writes.
const HARMLESS: &[&str] = &[
    "rename",
    "rename_all",
    "rename_all_fields",
    "alias",
    "default",
    "deny_unknown_fields",
    "bound",
    "crate",
    "expecting",
    "transparent",
    "borrow",
];

/// `#[derive(Wire)]`.
pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let (opaque, krate) = fields::wire(&item.attrs, true)?;
    let scope = scope(krate.as_ref());
    let layout = match &opaque {
        Some(text) => quote!(__rhumb::core::wire::opaque(#text)),
        None => {
            serde_is_plain(&item.attrs, "type")?;
            body(&item.data, &item.ident)?
        }
    };
    Ok(implementation(&item.ident, item.generics.clone(), &scope, &layout))
}

fn implementation(
    ident: &Ident,
    mut generics: Generics,
    scope: &TokenStream,
    layout: &TokenStream,
) -> TokenStream {
    let parameters: Vec<Ident> = generics.type_params().map(|parameter| parameter.ident.clone()).collect();
    if !parameters.is_empty() {
        let bounds = &mut generics.make_where_clause().predicates;
        bounds.extend(parameters.iter().map(|parameter| -> syn::WherePredicate {
            syn::parse_quote!(#parameter: __rhumb::core::wire::Wire)
        }));
    }
    let (impls, types, bounds) = generics.split_for_impl();
    // Evaluated where it stands, so that a type that contains itself is an error there.
    let evaluated = generics
        .params
        .is_empty()
        .then(|| quote!(const _: u64 = <#ident as __rhumb::core::wire::Wire>::LAYOUT;));
    quote! {
        const _: () = {
            #scope
            impl #impls __rhumb::core::wire::Wire for #ident #types #bounds {
                const LAYOUT: u64 = #layout;
            }
            #evaluated
        };
    }
}

fn body(data: &Data, ident: &Ident) -> Result<TokenStream> {
    match data {
        Data::Struct(data) => {
            let fields = of_fields("struct", &data.fields)?;
            Ok(quote!(#fields.finish()))
        }
        Data::Enum(data) => of_variants(data.variants.iter()),
        Data::Union(_) => Err(Error::new(ident.span(), "a union cannot travel: use an enum")),
    }
}

/// The layout of fields that never change.
fn of_fields(kind: &str, fields: &Fields) -> Result<TokenStream> {
    let mut parts = TokenStream::new();
    for (at, field) in fields.iter().enumerate() {
        if fields::since(&field.attrs)?.is_some() {
            let how = "only a growing struct grows in its fields: give the struct `#[grows]` (or `#[remote]`) instead of the derives; `#[since]` in an enum stands on variants";
            return Err(Error::new_spanned(field, how));
        }
        let opaque = fields::opaque(&field.attrs)?;
        if opaque.is_none() {
            serde_is_plain(&field.attrs, "field")?;
        }
        let name = field.ident.as_ref().map_or_else(|| at.to_string(), text);
        let layout = layout(&field.ty, opaque.as_ref());
        parts.extend(quote!(.field(#name, #layout)));
    }
    Ok(quote!(__rhumb::core::wire::Layout::of(#kind)#parts))
}

/// The variants of the first version are the layout; those that came later stand aside, behind them.
fn of_variants<'a>(variants: impl Iterator<Item = &'a Variant>) -> Result<TokenStream> {
    let (mut parts, mut newest) = (TokenStream::new(), None::<u16>);
    for variant in variants {
        serde_is_plain(&variant.attrs, "variant")?;
        let (name, fields) = (text(&variant.ident), of_fields("fields", &variant.fields)?);
        match (fields::since(&variant.attrs)?, newest) {
            (None, None) => parts.extend(quote!(.field(#name, #fields.finish()))),
            (None, Some(newest)) => {
                let how = format!(
                    "`{name}` stands behind variants that came later: put it before them, or say which version brought it, e.g. `#[since({newest})]`"
                );
                return Err(Error::new(variant.ident.span(), how));
            }
            (Some(Since { may_drop: true, .. }), _) => {
                let how = "a variant is all that its value says: it cannot be dropped";
                return Err(Error::new(variant.ident.span(), how));
            }
            (Some(Since { version, .. }), _) if newest.is_some_and(|newest| version < newest) => {
                let how = format!(
                    "`{name}` came before the variant that it stands behind: later variants stand in the order in which they came"
                );
                return Err(Error::new(variant.ident.span(), how));
            }
            (Some(Since { version, .. }), _) => {
                newest = Some(version);
                parts.extend(quote!(.aside(#fields.finish())));
            }
        }
    }
    Ok(quote!(__rhumb::core::wire::Layout::of("enum")#parts.finish()))
}

/// Refuses what makes serde write something else than the fields.
fn serde_is_plain(attrs: &[Attribute], place: &str) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        let metas = attr.parse_args_with(syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated)?;
        for meta in &metas {
            let key = meta.path().get_ident().cloned().unwrap_or_else(|| format_ident!("_"));
            if !HARMLESS.contains(&key.to_string().as_str()) {
                let how = match place {
                    "variant" => format!("`{key}` changes what the codec writes, or breaks it: leave it out"),
                    _ => format!(
                        "`{key}` changes what the codec writes: say which layout that is, `#[wire(opaque = \"NAME-v1\")]` on the {place}, or leave it out (harmless are {})",
                        list(HARMLESS)
                    ),
                };
                return Err(Error::new_spanned(meta, how));
            }
        }
    }
    Ok(())
}
