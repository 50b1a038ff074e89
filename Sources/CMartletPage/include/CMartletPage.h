// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The web page of `martlet serve`: its files as bytes in the binary, so that the page comes with the server and needs no folder beside it.
#ifndef MARTLET_PAGE_H
#define MARTLET_PAGE_H

#include <stddef.h>
#include <stdint.h>

/// A file of the page.
typedef struct {
  /// Relative to the address of the page, such as `page.css`: the page names its files so, and works behind any prefix. `index.html` is the page
  /// itself, and that address.
  const char *path;
  /// For the header `Content-Type`.
  const char *content_type;
  const uint8_t *bytes;
  size_t count;
} martlet_page_asset;

/// How many files the page has.
size_t martlet_page_asset_count(void);

/// File `index` of them; `index.html` is the first. (Swift sees no array whose length C does not say.)
martlet_page_asset martlet_page_asset_at(size_t index);

#endif
