"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const seen = document.getElementById("seen");
  const input = document.getElementById("input");
  const seenByCnn = document.getElementById("seen-cnn");
  const SIDE = 336; // pixels of a canvas along its longer side

  const unpack = (packed) => {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return { bytes, shape: packed.shape, low: packed.low, high: packed.high };
  };
  const part = (array, ...place) => {
    // The last dimension at a place of the others.
    const width = array.shape[array.shape.length - 1];
    const row = place.reduce((sum, at, i) => sum * array.shape[i] + at, 0);
    return array.bytes.subarray(row * width, (row + 1) * width);
  };
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  const all = (selector) => [...document.querySelectorAll(selector)];

  // ---- drawing ----------------------------------------------------------------------------------

  const prepare = (canvas, image = seen) => {
    const longer = Math.max(image.naturalWidth, image.naturalHeight);
    canvas.width = Math.round((SIDE * image.naturalWidth) / longer);
    canvas.height = Math.round((SIDE * image.naturalHeight) / longer);
    return canvas.getContext("2d");
  };
  const shade = (canvas, values, rows, columns, { image = seen, smooth = true } = {}) => {
    // The photograph, black where a value (0 to 255) is 0.
    const context = prepare(canvas, image);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    const dark = small.getContext("2d").createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i += 1) dark.data[4 * i + 3] = (255 - values[i]) * 0.8;
    small.getContext("2d").putImageData(dark, 0, 0);
    context.imageSmoothingEnabled = smooth;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    return context;
  };
  const frame = (context, canvas, rows, columns, place) => {
    const width = canvas.width / columns;
    const height = canvas.height / rows;
    const x = (place % columns) * width;
    const y = Math.floor(place / columns) * height;
    context.lineWidth = 5;
    context.strokeStyle = "#000";
    context.strokeRect(x, y, width, height);
    context.lineWidth = 2.5;
    context.strokeStyle = "#fff";
    context.strokeRect(x, y, width, height);
  };

  const drawMaps = (kind, data, image) => {
    const maps = data.why.map(unpack);
    for (const canvas of all(`[data-draw="${kind}"]`)) {
      shade(canvas, maps[Number(canvas.dataset.number)].bytes, data.grid.rows, data.grid.columns, { image });
    }
  };

  // ---- the ViT's views --------------------------------------------------------------------------

  const drawVit = () => {
    const { rows, columns, count, first, size: [tall, wide] } = facts.patches;
    const alike = unpack(facts.alike.alike);
    const attention = unpack(facts.attention.rows);
    const q = Object.fromEntries(Object.entries(facts.block.qkv).map(([key, each]) => [key, unpack(each)]));
    const softmax = unpack(facts.block.rows);
    const layer = document.getElementById("layer");
    const head = document.getElementById("head-number");
    let patch = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    let token = first + patch;

    const nearest = (kept, wanted, offset) => {
      // Of those that can be asked for the one that lies nearest: with many patches not all can.
      let best = 0;
      let least = Infinity;
      kept.forEach((each, i) => {
        if (each < offset) return;
        const down = Math.floor((each - offset) / columns) - Math.floor(wanted / columns);
        const right = ((each - offset) % columns) - (wanted % columns);
        if (down * down + right * right < least) [best, least] = [i, down * down + right * right];
      });
      return best;
    };

    const drawPatches = () => {
      for (const canvas of all('[data-draw="patches"]')) {
        const context = prepare(canvas);
        context.drawImage(seen, 0, 0, canvas.width, canvas.height);
        context.strokeStyle = "rgba(255,255,255,.75)";
        context.lineWidth = 1;
        for (let i = 1; i < columns; i += 1) context.strokeRect((i * canvas.width) / columns, -2, 0, canvas.height + 4);
        for (let i = 1; i < rows; i += 1) context.strokeRect(-2, (i * canvas.height) / rows, canvas.width + 4, 0);
        frame(context, canvas, rows, columns, patch);
      }
      for (const canvas of all('[data-draw="patch"]')) {
        canvas.width = Math.round((SIDE * wide) / Math.max(wide, tall));
        canvas.height = Math.round((SIDE * tall) / Math.max(wide, tall));
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = false;
        context.drawImage(input, (patch % columns) * wide, Math.floor(patch / columns) * tall, wide, tall, 0, 0, canvas.width, canvas.height);
      }
      for (const canvas of all('[data-draw="alike"]')) {
        const place = nearest(facts.alike.kept, patch, 0);
        const context = shade(canvas, part(alike, place), rows, columns, { smooth: false });
        frame(context, canvas, rows, columns, facts.alike.kept[place]);
      }
      const text = facts.words.chosen
        .replace("{number}", patch + 1)
        .replace("{row}", Math.floor(patch / columns) + 1)
        .replace("{column}", (patch % columns) + 1);
      const ofBlock = token < first ? facts.words.chosen_token : text;
      for (const output of all("output.chosen")) output.textContent = output.closest("#block") ? ofBlock : text;
    };

    const drawAttention = () => {
      const shown = Number(layer.value) - 1;
      document.getElementById("layer-number").textContent = layer.value;
      const mean = meanOf(shown);
      for (const canvas of all('[data-draw="mean"]')) shade(canvas, mean, rows, columns);
      for (const canvas of all('[data-draw="head"]')) shade(canvas, part(attention, shown, Number(canvas.dataset.number)), rows, columns);
      const own = facts.attention.own[shown];
      document.getElementById("own").textContent = facts.words.own.replace("{share}", percent(facts.attention.own_mean[shown]));
      for (const output of all("output.own")) output.textContent = percent(own[Number(output.dataset.number)]);
    };
    const meanOf = (shown) => {
      const sum = new Float32Array(count);
      for (let each = 0; each < facts.attention.heads; each += 1) {
        const values = part(attention, shown, each);
        const scale = facts.attention.largest[shown][each];
        for (let i = 0; i < count; i += 1) sum[i] += values[i] * scale;
      }
      const most = sum.reduce((a, b) => Math.max(a, b), 1e-9);
      return sum.map((value) => (255 * value) / most);
    };

    const drawBlock = () => {
      const shown = Number(head.value) - 1;
      document.getElementById("head-shown").textContent = head.value;
      const place = token < first ? token : nearest(facts.block.kept, token - first, first);
      for (const canvas of all('[data-draw="row"]')) {
        const context = shade(canvas, part(softmax, shown, place).subarray(first), rows, columns, { smooth: false });
        if (token >= first) frame(context, canvas, rows, columns, facts.block.kept[place] - first);
      }
      for (const canvas of all('[data-draw="vector"]')) {
        const values = part(q[canvas.dataset.key], shown, place);
        canvas.width = values.length;
        canvas.height = 1;
        const context = canvas.getContext("2d");
        const line = context.createImageData(values.length, 1);
        values.forEach((value, i) => {
          // Blue below 0, white at 0, red above.
          const far = Math.abs(value - 127.5) / 127.5;
          const colour = value < 127.5 ? [255 - 200 * far, 255 - 130 * far, 255] : [255, 255 - 150 * far, 255 - 220 * far];
          line.data.set([...colour, 255], 4 * i);
        });
        context.putImageData(line, 0, 0);
      }
    };

    const choose = (wanted) => {
      patch = Math.min(Math.max(wanted, 0), count - 1);
      token = first + patch;
      drawPatches();
      drawBlock();
    };
    for (const canvas of all("canvas.choose")) {
      const at = (event) => {
        const box = canvas.getBoundingClientRect();
        const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
        const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
        if (row >= 0 && row < rows && column >= 0 && column < columns) choose(row * columns + column);
      };
      canvas.addEventListener("pointerdown", at);
      canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && event.buttons === 1 && at(event));
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        if (patch + step >= 0 && patch + step < count) choose(patch + step);
      });
    }
    document.getElementById("ask-class-token").addEventListener("click", () => {
      token = 0;
      drawPatches();
      drawBlock();
    });
    layer.addEventListener("input", drawAttention);
    head.addEventListener("input", drawBlock);

    drawPatches();
    drawAttention();
    drawBlock();
    for (const canvas of all('[data-draw="last"]')) shade(canvas, meanOf(facts.attention.layers - 1), rows, columns);
  };

  const whenLoaded = (image, draw) => (image.complete && image.naturalWidth ? draw() : image.addEventListener("load", draw));
  whenLoaded(seen, () => {
    drawMaps("why", facts, seen);
    if (facts.patches) whenLoaded(input, drawVit);
  });
  if (facts.cnn) whenLoaded(seenByCnn, () => drawMaps("cnn", facts.cnn, seenByCnn));
})();
