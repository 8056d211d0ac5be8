// A list of which only the rows in sight exist, however many there are. Rows are equally high.

import { h } from "./dom.js";

const MARGIN = 12;

export class VList {
  /** make(): an empty row; fill(row, item, index): shows an item in it. */
  constructor({ height, make, fill, onopen, label }) {
    this.height = height;
    this.make = make;
    this.fill = fill;
    this.onopen = onopen;
    this.items = [];
    this.follow = true;
    this.selected = null;
    this.rows = [];
    this.space = h("div", { class: "vspace" });
    this.element = h("div", { class: "vlist", tabindex: "0", role: "listbox", "aria-label": label }, this.space);
    this.element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest(".vrow");
      if (row && row.item) { this.select(row.item); this.onopen?.(row.item); }
    });
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  scrolled() {
    if (this.setting) { this.setting = false; this.draw(); return; }
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    const follow = scrollHeight - scrollTop - clientHeight < this.height * 1.5;
    if (follow !== this.follow) { this.follow = follow; this.onfollow?.(follow); }
    this.draw();
  }

  /** All items anew. gone: how many fell off the front since; what is read stays where it is. */
  set(items, gone = 0) {
    this.items = items;
    this.space.style.height = `${items.length * this.height}px`;
    if (this.follow) this.toEnd();
    else if (gone) { this.setting = true; this.element.scrollTop -= gone * this.height; }
    this.draw();
  }

  toEnd() {
    const end = this.items.length * this.height - this.element.clientHeight;
    if (Math.abs(this.element.scrollTop - end) > 1 && end > 0) {
      this.setting = true;
      this.element.scrollTop = end;
    }
  }

  toNewest() {
    this.follow = true;
    this.onfollow?.(true);
    this.toEnd();
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.height) + MARGIN);
    while (this.rows.length < last - first) {
      const row = this.make();
      row.classList.add("vrow");
      row.style.height = `${this.height}px`;
      this.rows.push(row);
      this.space.append(row);
    }
    this.rows.forEach((row, n) => {
      const item = this.items[first + n];
      if (first + n >= last || item === undefined) {
        if (row.item !== null) { row.item = null; row.hidden = true; }
        return;
      }
      row.style.transform = `translateY(${(first + n) * this.height}px)`;
      if (row.item !== item || row.stamp !== this.stamp) {
        row.item = item;
        row.stamp = this.stamp;
        row.hidden = false;
        this.fill(row, item);
      }
      row.classList.toggle("selected", item === this.selected);
    });
  }

  /** Shows every row anew: how they are shown has changed. */
  redraw() {
    this.stamp = (this.stamp || 0) + 1;
    this.draw();
  }

  select(item) {
    this.selected = item;
    this.draw();
  }

  /** Selects the item so many rows on, and brings it into sight. */
  move(by) {
    if (!this.items.length) return;
    const now = this.selected ? this.items.indexOf(this.selected) : -1;
    const next = now < 0 ? (by > 0 && !this.follow ? Math.floor(this.element.scrollTop / this.height) : this.items.length - 1)
      : Math.max(0, Math.min(this.items.length - 1, now + by));
    this.selected = this.items[next];
    const top = next * this.height, { scrollTop, clientHeight } = this.element;
    if (top < scrollTop || top + this.height > scrollTop + clientHeight) {
      this.follow = false;
      this.onfollow?.(false);
      this.setting = true;
      this.element.scrollTop = top < scrollTop ? top : top + this.height - clientHeight;
    }
    this.draw();
  }

  open() {
    if (this.selected) this.onopen?.(this.selected);
  }
}
