// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#include "CMartletPage.h"

// #embed is C23's, and clang knows it in every dialect: no script makes arrays of the files, and the target is built anew when one changes.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const uint8_t index_html[] = {
#embed "page/index.html"
};
static const uint8_t page_css[] = {
#embed "page/page.css"
};
static const uint8_t icon_svg[] = {
#embed "page/icon.svg"
};
static const uint8_t chat_js[] = {
#embed "page/chat.js"
};
static const uint8_t colours_js[] = {
#embed "page/colours.js"
};
static const uint8_t dom_js[] = {
#embed "page/dom.js"
};
static const uint8_t live_js[] = {
#embed "page/live.js"
};
static const uint8_t main_js[] = {
#embed "page/main.js"
};
static const uint8_t markdown_view_js[] = {
#embed "page/markdown-view.js"
};
static const uint8_t markdown_js[] = {
#embed "page/markdown.js"
};
static const uint8_t message_view_js[] = {
#embed "page/message-view.js"
};
static const uint8_t page_map_js[] = {
#embed "page/page-map.js"
};
static const uint8_t prefix_tree_js[] = {
#embed "page/prefix-tree.js"
};
static const uint8_t server_js[] = {
#embed "page/server.js"
};
static const uint8_t settings_js[] = {
#embed "page/settings.js"
};
static const uint8_t sse_js[] = {
#embed "page/sse.js"
};
static const uint8_t step_strip_js[] = {
#embed "page/step-strip.js"
};
static const uint8_t store_js[] = {
#embed "page/store.js"
};
static const uint8_t theme_js[] = {
#embed "page/theme.js"
};
static const uint8_t tokens_js[] = {
#embed "page/tokens.js"
};

// A file that is not here is not served: Scripts/check-page.py opens the page with these alone.
static const martlet_page_asset assets[] = {
    {"index.html", "text/html; charset=utf-8", index_html, sizeof index_html},
    {"page.css", "text/css; charset=utf-8", page_css, sizeof page_css},
    {"icon.svg", "image/svg+xml", icon_svg, sizeof icon_svg},
    {"chat.js", "text/javascript; charset=utf-8", chat_js, sizeof chat_js},
    {"colours.js", "text/javascript; charset=utf-8", colours_js, sizeof colours_js},
    {"dom.js", "text/javascript; charset=utf-8", dom_js, sizeof dom_js},
    {"live.js", "text/javascript; charset=utf-8", live_js, sizeof live_js},
    {"main.js", "text/javascript; charset=utf-8", main_js, sizeof main_js},
    {"markdown-view.js", "text/javascript; charset=utf-8", markdown_view_js, sizeof markdown_view_js},
    {"markdown.js", "text/javascript; charset=utf-8", markdown_js, sizeof markdown_js},
    {"message-view.js", "text/javascript; charset=utf-8", message_view_js, sizeof message_view_js},
    {"page-map.js", "text/javascript; charset=utf-8", page_map_js, sizeof page_map_js},
    {"prefix-tree.js", "text/javascript; charset=utf-8", prefix_tree_js, sizeof prefix_tree_js},
    {"server.js", "text/javascript; charset=utf-8", server_js, sizeof server_js},
    {"settings.js", "text/javascript; charset=utf-8", settings_js, sizeof settings_js},
    {"sse.js", "text/javascript; charset=utf-8", sse_js, sizeof sse_js},
    {"step-strip.js", "text/javascript; charset=utf-8", step_strip_js, sizeof step_strip_js},
    {"store.js", "text/javascript; charset=utf-8", store_js, sizeof store_js},
    {"theme.js", "text/javascript; charset=utf-8", theme_js, sizeof theme_js},
    {"tokens.js", "text/javascript; charset=utf-8", tokens_js, sizeof tokens_js},
};

size_t martlet_page_asset_count(void) { return sizeof assets / sizeof assets[0]; }

martlet_page_asset martlet_page_asset_at(size_t index) { return assets[index]; }
