"use strict";
(() => {
  const lightbox = document.getElementById("lightbox");
  lightbox.addEventListener("click", (event) => {
    if (event.target === lightbox || event.target.closest(".close")) lightbox.close();
  });
  for (const button of document.querySelectorAll(".zoom")) {
    const image = button.querySelector("img");
    button.addEventListener("click", () => {
      lightbox.querySelector("img").src = image.src;
      lightbox.querySelector("img").alt = image.alt;
      lightbox.querySelector("p").textContent = image.alt;
      lightbox.showModal();
    });
  }
})();
