// The search completes every word that is typed, so that "in" and "a" of a sentence find every title with "input" or
// "ALPaCA" in it. Such words, signs and numbers are left out of what is searched for, where others remain: whoever
// pastes an error message finds its page.
(() => {
  const QUERY = 2; // the kind of a message that asks the search
  const SMALL = new Set(
    "and are but for from got has have into its not one only that the them they this was were what which with".split(" ")
  );
  const telling = (query) => {
    if (query.includes('"')) return query; // a phrase: as it is
    const sentence = query.replace(/(^|[\s([=])'[^']*'/g, "$1"); // what a message quotes is the reader's own
    const words = sentence.split(/[^\p{L}\p{N}_-]+/u).filter(Boolean);
    const kept = words.filter((word) => word.length > 2 && !/^\d/.test(word) && !SMALL.has(word.toLowerCase()));
    return words.length > 2 && kept.length > 1 ? kept.join(" ") : query;
  };
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...rest) {
    const asks = message && message.type === QUERY && typeof message.data === "string";
    return post.call(this, asks ? { ...message, data: telling(message.data) } : message, ...rest);
  };
})();
