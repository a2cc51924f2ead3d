const chips=[...document.querySelectorAll('button[data-i]')],data=JSON.parse(document.getElementById('heat').textContent),
cells=bytes(data.cells),size=cells.length/chips.length;let [heat,other]=document.querySelectorAll('.heat');
const figure=document.querySelector('figure'),say=document.getElementById('say'),tokens=[...document.querySelectorAll('.input-tokens')],
sanity=[...document.querySelectorAll('.sanity')];
let kept=-1,shown=-1;
function light(i){if(i===shown)return;shown=i;heat.classList.remove('on');if(i<0)return;[heat,other]=[other,heat];
paint(heat,Float32Array.from(cells.subarray(i*size,(i+1)*size),v=>v*data.gains[i]/255),data.grid,data.boxes);
heat.classList.toggle('weakly-grounded',chips[i].classList.contains('weakly-grounded'));heat.classList.add('on')}
function show(i){chips.forEach((c,k)=>c.setAttribute('aria-pressed',k===i));light(i);
figure.classList.toggle('lit',i>=0);say.textContent=i>=0?chips[i].dataset.say:'Point at, tap or tab to a target to see its map.';
tokens.forEach((t,k)=>t.hidden=k!==Math.max(i,0));sanity.forEach(s=>s.hidden=+s.dataset.of!==i);}
chips.forEach((c,i)=>{c.addEventListener('pointerenter',e=>{if(e.pointerType==='mouse')show(i)});
c.addEventListener('focus',()=>{kept=i;show(i)});c.addEventListener('click',()=>{kept=i;show(i)});
c.addEventListener('keydown',e=>{const d={ArrowRight:1,ArrowDown:1,ArrowLeft:-1,ArrowUp:-1}[e.key];
if(d){e.preventDefault();chips[(i+d+chips.length)%chips.length].focus()}});});
document.querySelector('.chips').addEventListener('pointerleave',()=>show(kept));
document.getElementById('o').addEventListener('input',e=>figure.style.setProperty('--o',e.target.value/100));
document.addEventListener('keydown',e=>{if(e.key==='Escape'){kept=-1;show(-1);document.activeElement.blur()}});
show(chips.length===1?kept=0:-1);
