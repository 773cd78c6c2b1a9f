"""The tables of a report's page, as a browser would show them."""

import html.parser


class Page(html.parser.HTMLParser):
    """tables[name] = rows of (kind, header, cells); a cell is a dict class -> text, its own classes under 'td'."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._table, self._row, self._spans, self._cell, self._header = {}, None, None, [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("data-name", "other"), [])
        elif tag == "tr" and self._table is not None:
            self._row = (attributes.get("class", "head"), [""], [])
            self._table.append(self._row)
        elif tag == "th" and self._row is not None:
            self._header = True
        elif tag == "td" and self._row is not None:
            self._cell = {"td": attributes.get("class", "")}
            self._row[2].append(self._cell)
        elif tag in ("span", "b", "sup") and self._cell is not None:
            name = attributes.get("class", "").split() or ["blind" if tag == "sup" else "number"]
            self._spans.append("difference_limits" if name[0] == "limits" and "number" in self._cell else name[0])

    def handle_endtag(self, tag):
        if tag in ("span", "b", "sup") and self._spans:
            self._spans.pop()
        elif tag == "td":
            self._cell, self._spans = None, []
        elif tag == "th":
            self._header = False
        elif tag == "table":
            self._table = self._row = None

    def handle_data(self, data):
        data = data.replace("\u2212", "-").strip()
        if not data:
            return
        if self._cell is not None:
            name = self._spans[-1] if self._spans else "text"
            self._cell[name] = self._cell.get(name, "") + data
        elif self._header and self._row is not None:
            self._row[1][0] += data

    def rows(self, table, kind=None):
        return [row for row in self.tables[table] if kind is None or row[0] == kind]
